// All instructions of MMX registers.

import type { InstructionGroup } from "../instruction.ts";
import { MMX_INTEGER } from "./integer.ts";

export const MMX: InstructionGroup = [...MMX_INTEGER];
