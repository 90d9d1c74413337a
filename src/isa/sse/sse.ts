// All instructions of XMM registers, from SSE to SSE4.2.

import type { InstructionGroup } from "../instruction.ts";
import { SSE_COMPARISONS } from "./compare.ts";
import { SSE_CONVERSIONS } from "./convert.ts";
import { SSE_ARITHMETIC } from "./float-arithmetic.ts";
import { SSE_INTEGER } from "./integer.ts";
import { SSE_MOVES } from "./move.ts";
import { SSE_SHUFFLES } from "./shuffle.ts";

export const SSE: InstructionGroup = [
  ...SSE_MOVES,
  ...SSE_INTEGER,
  ...SSE_SHUFFLES,
  ...SSE_ARITHMETIC,
  ...SSE_COMPARISONS,
  ...SSE_CONVERSIONS,
];
