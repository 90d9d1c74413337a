// All instructions: the table from which decoder, interpreter, translator, tests and documentation are made. Each part of the manual has
// a group of its own.

import type { InstructionGroup } from "./instruction.ts";
import { ALU } from "./integer/alu.ts";
import { BITS } from "./integer/bits.ts";
import { BOUND } from "./integer/bound.ts";
import { BRANCH } from "./integer/branch.ts";
import { DECIMAL } from "./integer/decimal.ts";
import { MOVE } from "./integer/move.ts";
import { MULTIPLY } from "./integer/multiply.ts";
import { SHIFT } from "./integer/shift.ts";
import { STACK } from "./integer/stack.ts";
import { STRING } from "./integer/string.ts";
import { MMX } from "./mmx/mmx.ts";
import { SSE } from "./sse/sse.ts";
import { SYSTEM } from "./system/system.ts";
import { X87 } from "./x87/x87.ts";

const INTEGER: InstructionGroup = [
  ...MOVE,
  ...ALU,
  ...SHIFT,
  ...MULTIPLY,
  ...BITS,
  ...STACK,
  ...BRANCH,
  ...STRING,
  ...DECIMAL,
  ...BOUND,
];

export const INSTRUCTIONS: InstructionGroup = [...INTEGER, ...SYSTEM, ...X87, ...MMX, ...SSE];
