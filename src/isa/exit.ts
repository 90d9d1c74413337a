// Why the run loop of the engine returns to its caller.

export const EXIT = {
  /** The instruction budget is used up, or a poll was asked for. */
  BUDGET: 0,
  /** HLT: RIP is behind it; the activity state is halted. */
  HLT: 1,
  /** Triple fault: the activity state is shutdown. */
  SHUTDOWN: 2,
  /** Interrupts have just become possible (IF set, CR8 lowered, IRET): the caller may have one to inject. */
  INTERRUPT_WINDOW: 3,
} as const;
