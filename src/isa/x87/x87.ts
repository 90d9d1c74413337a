// All x87 instructions.

import type { InstructionGroup } from "../instruction.ts";
import { X87_ARITHMETIC } from "./arithmetic-instructions.ts";
import { X87_COMPARE } from "./compare-instructions.ts";
import { X87_CONTROL } from "./control-instructions.ts";
import { X87_LOAD_STORE } from "./load-store-instructions.ts";
import { X87_TRANSCENDENTAL } from "./transcendental-instructions.ts";

export const X87: InstructionGroup = [
  ...X87_LOAD_STORE,
  ...X87_ARITHMETIC,
  ...X87_COMPARE,
  ...X87_CONTROL,
  ...X87_TRANSCENDENTAL,
];
