// The first 512 bytes of FXSAVE and XSAVE areas: x87 state and XMM registers (SDM Vol. 1 table 10-2, 13.4.1).

import { i32, laneOp, op, select, type Val } from "../../wasm/value.ts";
import { faultingHelper, helper } from "../helper.ts";
import { in64BitMode } from "../segmentation.ts";
import type { Env } from "../semantics.ts";
import {
  FCS,
  FCW,
  FDP,
  FDS,
  FIP,
  type Field,
  FOP,
  FSW,
  FTW,
  MXCSR,
  VECTOR_BASE,
  VECTOR_STRIDE,
  X87_BASE,
} from "../state.ts";

export const IMAGE = {
  FCW: 0,
  FSW: 2,
  FTW: 4,
  FOP: 6,
  FIP: 8,
  FDP: 16,
  MXCSR: 24,
  MXCSR_MASK: 28,
  ST: 32,
  XMM: 160,
  SIZE: 512,
} as const;

/** Bits of MXCSR that exist, DAZ included; a load with others set raises #GP(0). */
export const MXCSR_BITS = 0xffff;
const MXCSR_RESET = 0x1f80;
const FCW_RESET = 0x37f;
/** Bits of the control word that can be set; bit 6 reads as one. */
const FCW_BITS = 0x1f3f;
const FCW_ONE = 0x40;

export function at(area: Val, offset: number): Val {
  return area.add(BigInt(offset));
}

/** Offset in the register file of the register that is ST(n). */
function stackRegister(x: Env, n: number): Val {
  return x.c.let(x.get(FSW).shrU(11).add(n).and(7).shl(4));
}

/** x87 part: area, 1 for 64-bit instruction and data pointers (REX.W). */
export const storeX87 = faultingHelper("storeX87", ["i64", "i32"], [], (x, area, wide) => {
  const word = (offset: number, value: Val): void => x.store(16, at(area, offset), value);
  word(IMAGE.FCW, x.get(FCW));
  word(IMAGE.FSW, x.get(FSW));
  word(IMAGE.FTW, x.get(FTW).and(0xff));
  word(IMAGE.FOP, x.get(FOP).and(0x7ff));
  const pointer = (offset: number, field: Field, selector: Field): void => {
    const narrow = x.get(field).and(0xffffffffn).or(x.get(selector).and(0xffff).zx().shl(32));
    x.store(64, at(area, offset), select(wide, x.get(field), narrow));
  };
  pointer(IMAGE.FIP, FIP, FCS);
  pointer(IMAGE.FDP, FDP, FDS);
  for (let n = 0; n < 8; n++) {
    const register = stackRegister(x, n);
    const low = op("i64x2.splat", x.cpu.ld64(register, X87_BASE));
    const whole = laneOp("i64x2.replace_lane", [1], low, x.cpu.ld16u64(register, X87_BASE + 8));
    x.store(128, at(area, IMAGE.ST + n * 16), whole);
  }
  x.done();
});

export const loadX87 = faultingHelper("loadX87", ["i64", "i32"], [], (x, area, wide) => {
  const word = (offset: number): Val => x.load(16, at(area, offset));
  x.put(FCW, word(IMAGE.FCW).and(FCW_BITS).or(FCW_ONE));
  x.put(FSW, word(IMAGE.FSW));
  x.put(FTW, word(IMAGE.FTW).and(0xff));
  x.put(FOP, word(IMAGE.FOP).and(0x7ff));
  const pointer = (offset: number, field: Field, selector: Field): void => {
    const value = x.load(64, at(area, offset));
    x.put(field, select(wide, value, value.and(0xffffffffn)));
    x.put(selector, select(wide, i32(0), value.shrU(32).wrap().and(0xffff)));
  };
  pointer(IMAGE.FIP, FIP, FCS);
  pointer(IMAGE.FDP, FDP, FDS);
  for (let n = 0; n < 8; n++) {
    const low = x.load(64, at(area, IMAGE.ST + n * 16));
    const high = x.load(16, at(area, IMAGE.ST + n * 16 + 8));
    const register = stackRegister(x, n);
    x.c.st64(x.cpu, register, low, X87_BASE);
    x.c.st64(x.cpu, register, high.zx(), X87_BASE + 8);
  }
  x.done();
});

/** The x87 state after FNINIT, with empty registers of zero (SDM Vol. 1 13.6). */
export const initX87 = helper("initX87", [], [], (x) => {
  x.put(FCW, FCW_RESET);
  for (const field of [FSW, FTW, FOP, FCS, FDS]) x.put(field, 0);
  x.put(FIP, 0n);
  x.put(FDP, 0n);
  x.c.memoryFill(x.cpu, X87_BASE, 0, 8 * 16);
  x.done();
});

/** Runs `body` for XMM0 to XMM7, and in 64-bit mode for the upper eight too. */
export function forVectors(x: Env, body: (n: number, offset: number) => void): void {
  const each = (from: number): void => {
    for (let n = from; n < from + 8; n++) body(n, VECTOR_BASE + n * VECTOR_STRIDE);
  };
  each(0);
  x.c.if(in64BitMode(x), () => each(8));
}

export const storeXmm = faultingHelper("storeXmm", ["i64"], [], (x, area) => {
  forVectors(x, (n) => x.store(128, at(area, IMAGE.XMM + n * 16), x.xmm(n)));
  x.done();
});

export const loadXmm = faultingHelper("loadXmm", ["i64"], [], (x, area) => {
  forVectors(x, (n) => x.setXmm(n, x.load(128, at(area, IMAGE.XMM + n * 16))));
  x.done();
});

export function storeMxcsr(x: Env, area: Val): void {
  x.store(32, at(area, IMAGE.MXCSR), x.get(MXCSR));
  x.store(32, at(area, IMAGE.MXCSR_MASK), i32(MXCSR_BITS));
}

export function resetMxcsr(x: Env): void {
  x.put(MXCSR, MXCSR_RESET);
}
