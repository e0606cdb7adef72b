export type Fine = 'breaks nothing';
export const fine: Fine = 'breaks nothing';
