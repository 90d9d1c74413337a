// How a handler or helper of the engine module ends, as the i32 it returns.

export const STATUS = {
  /** Complete: go on with the next record. */
  DONE: 0,
  /** An exception is pending; the state is that before the instruction. */
  FAULT: 1,
  /** Complete; the RIP field says where to go on. */
  LOOKUP: 2,
  /** Complete; EXIT_REASON is set and the RIP field says where to go on. */
  EXIT: 3,
  /** Complete: go on with the block behind this one, or with the target of a relative jump. */
  NOT_TAKEN: 4,
  TAKEN: 5,
  /** From a region: nothing of the record at VAR.IP has been done, and the interpreter shall do it. */
  INTERPRET: 6,
  /** From a region: go on with the block of the record at VAR.IP. */
  ENTER: 7,
} as const;
