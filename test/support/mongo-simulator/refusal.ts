import type { Document } from 'bson';

/** Codes of https://github.com/mongodb/mongo/blob/master/src/mongo/base/error_codes.yml that are answered here. */
const codes = {
  BadValue: 2,
  NamespaceNotFound: 26,
  IndexNotFound: 27,
  CursorNotFound: 43,
  NamespaceExists: 48,
  CommandNotFound: 59,
  InvalidOptions: 72,
  InvalidNamespace: 73,
  IndexOptionsConflict: 85,
  IndexKeySpecsConflict: 86,
  NotWritablePrimary: 10_107,
  DuplicateKey: 11_000,
  NotPrimaryNoSecondaryOk: 13_435,
  CannotExtractGeoKeys: 16_755,
  UnrecognizedStage: 40_324,
  UnknownField: 40_415,
} as const;

/** What the server would answer instead of doing it. */
export class Refusal extends Error {
  readonly code: number;
  readonly codeName: keyof typeof codes;
  readonly more: Document;
  constructor(codeName: keyof typeof codes, message: string, more: Document = {}) {
    super(message);
    this.codeName = codeName;
    this.code = codes[codeName];
    this.more = more;
  }
  toReply(): Document {
    return { ok: 0, errmsg: this.message, code: this.code, codeName: this.codeName, ...this.more };
  }
}
