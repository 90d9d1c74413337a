// The seam for block storage. Synchronous, since devices run on a thread of their own; a failure is an exception.

export interface BlockStorage {
  /** In bytes; fixed while the storage is open. */
  readonly size: number;
  readonly readOnly: boolean;
  /** Fills `into`, which may be shared memory, from the byte `offset`. */
  read(offset: number, into: Uint8Array): void;
  write(offset: number, data: Uint8Array): void;
  /** Returns when all that was written is on stable storage. */
  flush(): void;
  /** Gives the range's space back where that can be done; it reads as zeroes afterwards in any case. */
  discard(offset: number, length: number): void;
}
