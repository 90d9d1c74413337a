// REP CMPS and REP SCAS, sixteen bytes at once within a page of each operand: how many elements can be passed over because the repetition
// goes on behind each of them. The element that ends it is left to the ordinary way, and with it the flags.

import { i32, op, select, type Val } from "../../wasm/value.ts";
import { type Helper, helper } from "../helper.ts";
import { addressMask, indexRegister } from "../segmentation.ts";
import type { Bits, Env } from "../semantics.ts";
import { GPR, SREG } from "../state.ts";
import {
  hostOf,
  isBackwards,
  least,
  leaveChecked,
  moveIndex,
  noneIf,
  ramAddress,
  type Stretch,
  stretch,
} from "./string-stretch.ts";

const LANES: { readonly [bits in Bits]: "i8x16" | "i16x8" | "i32x4" | "i64x2" } = {
  8: "i8x16",
  16: "i16x8",
  32: "i32x4",
  64: "i64x2",
};

/** Sixteen bytes of an operand: `at` bytes behind (below, where backwards) its first element. */
function chunk(x: Env, host: Val, at: Val, backwards: Val, bytes: number): Val {
  const place = select(backwards, host.sub(at).sub(16 - bytes), host.add(at));
  return x.ram.ldv128(ramAddress(x, place));
}

/** Elements until the first that stops: `both` gives the vectors at an offset; `onEqual`: whether equal ones stop. */
function pass(
  x: Env,
  bits: Bits,
  elements: Val,
  backwards: Val,
  onEqual: Val,
  both: (at: Val) => readonly [Val, Val],
): Val {
  const { c } = x;
  const lanes = 128 / bits;
  const all = (1 << lanes) - 1;
  const log = Math.log2(bits / 8);
  const passed = c.local("i32", 0);
  const flip = c.let(select(onEqual, i32(0), all));
  c.block((found) => {
    c.loop((head) => {
      c.brIf(found, passed.add(lanes).gtU(elements));
      const [a, b] = both(passed.shl(log));
      const stops = c.let(op(`${LANES[bits]}.bitmask`, op(`${LANES[bits]}.eq`, a, b)).xor(flip));
      c.if(stops, () => {
        const first = select(backwards, stops.clz().sub(32 - lanes), stops.ctz());
        c.set(passed, passed.add(first));
        c.br(found);
      });
      c.set(passed, passed.add(lanes));
      c.br(head);
    });
  });
  return passed;
}

/** The elements to look at: those of all operands' pages, at most those wanted; none where too few for a vector. */
function within(x: Env, bits: Bits, wanted: Val, stretches: readonly Stretch[]): Val {
  const most = stretches.reduce((fewest, { elements }) => least(x, fewest, elements), wanted);
  const elements = x.c.let(most.wrap());
  noneIf(x, elements.ltU(128 / bits));
  leaveChecked(x, bits / 8, ...stretches);
  return elements;
}

/** (address size, elements wanted, whether equal ones stop) -> elements of ES:rDI passed over, compared with the accumulator. */
function scanHelper(bits: Bits): Helper {
  const bytes = bits / 8;
  return helper(`scanBulk${bits}`, ["i32", "i64", "i32"], ["i64"], (x, size, wanted, onEqual) => {
    const { c } = x;
    noneIf(x, wanted.ltU(128 / bits));
    const mask = c.let(addressMask(size));
    const backwards = isBackwards(x);
    const operand = stretch(x, bytes, SREG.ES, indexRegister(x, GPR.RDI, mask), mask, backwards, 0);
    const elements = within(x, bits, wanted, [operand]);
    const host = hostOf(x, operand);
    const value = c.let(op(`${LANES[bits]}.splat`, x.gpr(GPR.RAX, bits)));
    const passed = pass(x, bits, elements, backwards, onEqual, (at) => [chunk(x, host, at, backwards, bytes), value]);
    noneIf(x, passed.eqz());
    moveIndex(x, GPR.RDI, size, mask, backwards, c.let(passed.zx().mul(bytes)));
    x.done(passed.zx());
  });
}

/** (segment, address size, elements wanted, whether equal ones stop) -> elements passed over. */
function compareHelper(bits: Bits): Helper {
  const bytes = bits / 8;
  return helper(`compareBulk${bits}`, ["i32", "i32", "i64", "i32"], ["i64"], (x, segment, size, wanted, onEqual) => {
    const { c } = x;
    noneIf(x, wanted.ltU(128 / bits));
    const mask = c.let(addressMask(size));
    const backwards = isBackwards(x);
    const first = stretch(x, bytes, segment, indexRegister(x, GPR.RSI, mask), mask, backwards, 0);
    const second = stretch(x, bytes, SREG.ES, indexRegister(x, GPR.RDI, mask), mask, backwards, 0);
    const elements = within(x, bits, wanted, [first, second]);
    const [a, b] = [first, second].map((operand) => hostOf(x, operand));
    const passed = pass(x, bits, elements, backwards, onEqual, (at) => [
      chunk(x, a, at, backwards, bytes),
      chunk(x, b, at, backwards, bytes),
    ]);
    noneIf(x, passed.eqz());
    const moved = c.let(passed.zx().mul(bytes));
    moveIndex(x, GPR.RSI, size, mask, backwards, moved);
    moveIndex(x, GPR.RDI, size, mask, backwards, moved);
    x.done(passed.zx());
  });
}

export const SCAN_BULK: { readonly [bits in Bits]: Helper } = {
  8: scanHelper(8),
  16: scanHelper(16),
  32: scanHelper(32),
  64: scanHelper(64),
};
export const COMPARE_BULK: { readonly [bits in Bits]: Helper } = {
  8: compareHelper(8),
  16: compareHelper(16),
  32: compareHelper(32),
  64: compareHelper(64),
};
