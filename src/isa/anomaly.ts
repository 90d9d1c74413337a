// Guest mistakes and unusual acts that the engine counts, by number.

export const ANOMALY = {
  UNKNOWN_MSR_READ: 0,
  UNKNOWN_MSR_WRITE: 1,
  UNDEFINED_OPCODE: 2,
  TASK_SWITCH: 3,
  TRIPLE_FAULT: 4,
  UNSUPPORTED: 5,
} as const;
