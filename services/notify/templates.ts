import { AppError } from '../../lib/errors.ts';

/** What is said, by template; `{name}` stands for a value. In the OTP the code is the only run of 4 to 8 digits. */
const texts = {
  otp: '{code} is your sign-in code. It is good for five minutes. Never share it, not even with us.',
} as const;

export type Template = keyof typeof texts;

/** @throws TEMPLATE_VARIABLE_MISSING when `data` lacks a value. */
export function renderText(template: Template, data: Record<string, string>): string {
  return texts[template].replace(/\{(\w+)\}/g, (_, name: string) => {
    const value = Object.hasOwn(data, name) ? data[name] : undefined;
    if (value === undefined)
      throw new AppError('TEMPLATE_VARIABLE_MISSING', {
        fields: [{ path: `data.${name}`, message: 'is missing' }],
      });
    return value;
  });
}
