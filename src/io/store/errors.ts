/** Why a store cannot be opened or used. */
export type StoreErrorDetail =
  /** The file is damaged. */
  | { readonly code: 'STORE_CORRUPT'; readonly path: string; readonly reason: string }
  /** The file is something else than a store of weft. It was not changed. */
  | { readonly code: 'STORE_FOREIGN'; readonly path: string; readonly reason: string }
  /** The file was written by a weft with another schema. It was not changed. */
  | {
      readonly code: 'STORE_VERSION';
      readonly path: string;
      readonly found: number;
      readonly expected: number;
    }
  /** Another process has the file open. */
  | { readonly code: 'STORE_BUSY'; readonly path: string }
  /** The system refused: permissions, a full or a failing disk. */
  | { readonly code: 'STORE_UNAVAILABLE'; readonly path: string; readonly reason: string }
  /** It was closed before. */
  | { readonly code: 'STORE_CLOSED' };

/** A store that cannot do its work. Match on `detail.code`, never on `message`. */
export class StoreError extends Error {
  override readonly name = 'StoreError';
  readonly detail: StoreErrorDetail;

  constructor(detail: StoreErrorDetail, options?: ErrorOptions) {
    super(describe(detail), options);
    this.detail = detail;
  }
}

function describe(detail: StoreErrorDetail): string {
  switch (detail.code) {
    case 'STORE_CORRUPT':
      return (
        `Cannot use the store ${detail.path}: it is damaged (${detail.reason}), ` +
        'restore a backup, or move it away to start an empty cluster'
      );
    case 'STORE_FOREIGN':
      return (
        `Cannot use ${detail.path} as a store: ${detail.reason}, ` +
        'expected a store of weft or no file, give another path or move the file away'
      );
    case 'STORE_VERSION':
      return (
        `Cannot use the store ${detail.path}: it has schema ${detail.found}, ` +
        `expected ${detail.expected}, run the version of weft that wrote it`
      );
    case 'STORE_BUSY':
      return `Cannot use the store ${detail.path}: another process has it open, stop it first`;
    case 'STORE_UNAVAILABLE':
      return `Cannot use the store ${detail.path}: ${detail.reason}`;
    case 'STORE_CLOSED':
      return 'Cannot use a closed store';
  }
}
