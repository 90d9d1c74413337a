// AES and carry-less multiplication (Intel SDM Vol. 1 12.13; FIPS 197 section 5; Vol. 2A AESENC and the like, Vol. 2B PCLMULQDQ). The state is a
// vector whose byte r + 4c is row r of column c. There are no tables in memory: a substitution is sixteen swizzles.

import type { Code } from "../../wasm/code.ts";
import { op, select, type Val } from "../../wasm/value.ts";
import { helper } from "../helper.ts";
import type { Instruction, InstructionGroup } from "../instruction.ts";
import { FEATURE } from "./feature.ts";
import { packed } from "./integer.ts";
import { half, join, lanes, shuffle, splat, useSse } from "./state.ts";

/** Product in GF(2^8) modulo x^8 + x^4 + x^3 + x + 1. */
function product(a: number, b: number): number {
  let result = 0;
  for (let bit = 0, shifted = a; bit < 8; bit++) {
    if ((b >> bit) & 1) result ^= shifted;
    shifted = (shifted << 1) ^ (shifted & 0x80 ? 0x11b : 0);
  }
  return result;
}

/** The S-box: the inverse (zero to itself), then an affine map over bits (FIPS 197 5.1.1). */
function substitution(): number[] {
  return Array.from({ length: 256 }, (_, value) => {
    let inverse = 1;
    for (let k = 0; k < 254; k++) inverse = product(inverse, value);
    let result = 0x63;
    for (let turn = 0; turn < 5; turn++) result ^= (inverse << turn) | (inverse >> (8 - turn));
    return result & 0xff;
  });
}

const SUBSTITUTE = substitution();
const INVERT = SUBSTITUTE.map((_, value) => SUBSTITUTE.indexOf(value));

function substituteHelper(name: string, table: readonly number[]) {
  return helper(name, ["v128"], ["v128"], (x, state) => {
    const { c } = x;
    const result = c.local("v128");
    for (let row = 0; row < 16; row++) {
      const values = lanes(table.slice(row * 16, row * 16 + 16));
      // Bytes of other rows give indexes from 16 on, and so zero.
      const chosen = op("i8x16.swizzle", values, op("i8x16.sub", state, splat(8, BigInt(row * 16))));
      c.set(result, row === 0 ? chosen : op("v128.or", result, chosen));
    }
    x.done(result);
  });
}

const substitute = substituteHelper("aesSubstitute", SUBSTITUTE);
const invert = substituteHelper("aesInvert", INVERT);

const PLACES = Array.from({ length: 16 }, (_, i) => i);
/** Row r moves left by r columns, or right. */
const SHIFT_ROWS = PLACES.map((place) => (place + 4 * (place % 4)) % 16);
const SHIFT_ROWS_BACK = PLACES.map((place) => (place + 12 * (place % 4)) % 16);

/** Within each column, byte i comes from row i + by. */
function turnColumns(state: Val, by: number): Val {
  return shuffle(
    state,
    state,
    PLACES.map((place) => (place & ~3) + ((place + by) % 4)),
  );
}

function double(state: Val): Val {
  const reduce = op("v128.and", op("i8x16.shr_s", state, 7), splat(8, 0x1bn));
  return op("v128.xor", op("i8x16.shl", state, 1), reduce);
}

/** Each byte becomes 2a + 3b + c + d, with the bytes below it in its column. */
function mixColumns(c: Code, state: Val): Val {
  const next = c.let(turnColumns(state, 1));
  const doubled = double(c.let(op("v128.xor", state, next)));
  const others = op("v128.xor", next, op("v128.xor", turnColumns(state, 2), turnColumns(state, 3)));
  return op("v128.xor", doubled, others);
}

/** Adding four times a + c to a and to c makes the inverse out of the same mixing. */
function mixColumnsBack(c: Code, state: Val): Val {
  const sum = c.let(op("v128.xor", state, turnColumns(state, 2)));
  const four = double(c.let(double(sum)));
  return mixColumns(c, c.let(op("v128.xor", state, four)));
}

function aes(name: string, row: string, compute: (x: Parameters<Instruction["semantics"]>[0], a: Val, b: Val) => Val) {
  return {
    name,
    rows: [`${row} /r: Vx, Wx`],
    feature: FEATURE.AES,
    semantics: (x) => {
      useSse(x);
      const key = x.readAligned(1);
      x.write(0, compute(x, x.read(0), key));
    },
  } satisfies Instruction;
}

function encryptRound(last: boolean) {
  return aes(last ? "AESENCLAST" : "AESENC", `66 0F 38 ${last ? "DD" : "DC"}`, (x, state, key) => {
    const replaced = x.call(substitute, shuffle(state, state, SHIFT_ROWS));
    return op("v128.xor", last ? replaced : mixColumns(x.c, replaced), key);
  });
}

function decryptRound(last: boolean) {
  return aes(last ? "AESDECLAST" : "AESDEC", `66 0F 38 ${last ? "DF" : "DE"}`, (x, state, key) => {
    const replaced = x.call(invert, shuffle(state, state, SHIFT_ROWS_BACK));
    return op("v128.xor", last ? replaced : mixColumnsBack(x.c, replaced), key);
  });
}

/** Doublewords 1 and 3 substituted; then the same turned by a byte, with the round constant. */
const keyAssist: Instruction = {
  name: "AESKEYGENASSIST",
  rows: ["66 0F 3A DF /r: Vx, Wx, Ib"],
  feature: FEATURE.AES,
  semantics: (x) => {
    useSse(x);
    const replaced = x.call(substitute, x.readAligned(1));
    const words = shuffle(replaced, replaced, [4, 5, 6, 7, 5, 6, 7, 4, 12, 13, 14, 15, 13, 14, 15, 12]);
    x.write(0, op("v128.xor", words, op("i64x2.splat", x.immediate().zx().shl(32))));
  },
};

/** Low 64 bits of a product without carries. Each operand is taken apart into four with three zero bits between its bits, so that the
 *  carries of ordinary products do not reach the next bit that counts. */
function multiplyLow(c: Code, x: Val, y: Val): Val {
  const masks = [0, 1, 2, 3].map((k) => 0x1111_1111_1111_1111n << BigInt(k));
  const apart = (value: Val): Val[] => masks.map((mask) => c.let(value.and(mask)));
  const xs = apart(x);
  const ys = apart(y);
  const parts = masks.map((mask, sum) => {
    const products = xs.map((part, k) => part.mul(ys[(sum - k + 4) % 4]));
    return products.reduce((all, next) => all.xor(next)).and(mask);
  });
  return parts.reduce((all, next) => all.or(next));
}

function reversed(c: Code, value: Val): Val {
  const swap = (from: Val, by: number, mask: bigint): Val => c.let(from.shrU(by).and(mask).or(from.and(mask).shl(by)));
  const bits = swap(value, 1, 0x5555_5555_5555_5555n);
  const pairs = swap(bits, 2, 0x3333_3333_3333_3333n);
  const nibbles = swap(pairs, 4, 0x0f0f_0f0f_0f0f_0f0fn);
  const bytes = op("i64x2.splat", nibbles);
  return c.let(half(shuffle(bytes, bytes, [7, 6, 5, 4, 3, 2, 1, 0, 7, 6, 5, 4, 3, 2, 1, 0]), 0));
}

/** (a, b) to the 128-bit product without carries. The high half is the low half of the reversed operands' product, reversed. */
const multiplyCarryless = helper("multiplyCarryless", ["i64", "i64"], ["v128"], (x, a, b) => {
  const { c } = x;
  const low = multiplyLow(c, a, b);
  const high = reversed(c, c.let(multiplyLow(c, reversed(c, a), reversed(c, b)))).shrU(1);
  x.done(join(low, high));
});

export const SSE_CIPHERS: InstructionGroup = [
  encryptRound(false),
  encryptRound(true),
  decryptRound(false),
  decryptRound(true),
  packed("AESIMC", FEATURE.AES, "66 0F 38 DB", (_, source, c) => mixColumnsBack(c, source)),
  keyAssist,
  {
    name: "PCLMULQDQ",
    rows: ["66 0F 3A 44 /r: Vx, Wx, Ib"],
    feature: FEATURE.PCLMULQDQ,
    semantics: (x) => {
      useSse(x);
      const b = x.readAligned(1);
      const a = x.read(0);
      const immediate = x.c.let(x.immediate());
      const first = select(immediate.and(1), half(a, 1), half(a, 0));
      const second = select(immediate.and(16), half(b, 1), half(b, 0));
      x.write(0, x.call(multiplyCarryless, first, second));
    },
  },
];
