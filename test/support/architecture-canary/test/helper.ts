export type Helper = 'breaks nothing';
