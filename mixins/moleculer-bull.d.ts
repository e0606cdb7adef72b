/** moleculer-bull brings no types; what we use of it. */
declare module 'moleculer-bull' {
  export default function BullService(url: string, options: object): object;
}
