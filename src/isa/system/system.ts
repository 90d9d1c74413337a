// The instructions of operating systems and of the boundary between privilege levels, in one group for the instruction table.

import type { InstructionGroup } from "../instruction.ts";
import { CONTROL_INSTRUCTIONS } from "./control.ts";
import { CPUID_INSTRUCTIONS } from "./cpuid.ts";
import { INTERRUPTS } from "./interrupts.ts";
import { IO } from "./io.ts";
import { MSR_INSTRUCTIONS } from "./msr.ts";
import { PRIVILEGED } from "./privileged.ts";
import { RANDOM } from "./random.ts";
import { SEGMENT_INSTRUCTIONS } from "./segments.ts";
import { TABLE_INSTRUCTIONS } from "./tables.ts";
import { TRANSFERS } from "./transfers.ts";
import { XSAVE_INSTRUCTIONS } from "./xsave.ts";

export const SYSTEM: InstructionGroup = [
  ...INTERRUPTS,
  ...TRANSFERS,
  ...SEGMENT_INSTRUCTIONS,
  ...TABLE_INSTRUCTIONS,
  ...CONTROL_INSTRUCTIONS,
  ...MSR_INSTRUCTIONS,
  ...PRIVILEGED,
  ...IO,
  ...CPUID_INSTRUCTIONS,
  ...RANDOM,
  ...XSAVE_INSTRUCTIONS,
];
