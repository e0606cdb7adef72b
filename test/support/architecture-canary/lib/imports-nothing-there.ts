export const broken = await import('./nothing-there.ts');
