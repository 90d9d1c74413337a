// All instructions of XMM registers, from SSE to SSE4.2, with AES and carry-less multiplication.

import type { InstructionGroup } from "../instruction.ts";
import { SSE_CIPHERS } from "./cipher.ts";
import { SSE_COMPARISONS } from "./compare.ts";
import { SSE_CONVERSIONS } from "./convert.ts";
import { CRC32 } from "./crc32.ts";
import { SSE_ARITHMETIC } from "./float-arithmetic.ts";
import { SSE_INTEGER } from "./integer.ts";
import { SSE_MASKED_STORE } from "./masked-store.ts";
import { SSE_MOVES } from "./move.ts";
import { SSE_SHUFFLES } from "./shuffle.ts";
import { SSE_STRINGS } from "./string-compare.ts";

export const SSE: InstructionGroup = [
  ...SSE_MOVES,
  ...SSE_MASKED_STORE,
  ...SSE_INTEGER,
  ...SSE_SHUFFLES,
  ...SSE_ARITHMETIC,
  ...SSE_COMPARISONS,
  ...SSE_CONVERSIONS,
  ...SSE_STRINGS,
  ...CRC32,
  ...SSE_CIPHERS,
];
