// All instructions of MMX registers.

import type { InstructionGroup } from "../instruction.ts";
import { MMX_CONVERSIONS } from "./convert.ts";
import { MMX_INTEGER } from "./integer.ts";

export const MMX: InstructionGroup = [...MMX_INTEGER, ...MMX_CONVERSIONS];
