// Conversions between integers and floating-point formats, and rounding to integral values (Intel SDM Vol. 1 10.4.3, 11.4.1.6, 12.9; the
// pages of the instructions in Vol. 2A and 2B).

import { laneOp, op, select, type Val } from "../../wasm/value.ts";
import { type Helper, helper } from "../helper.ts";
import type { Instruction, InstructionGroup } from "../instruction.ts";
import type { Env, Sem } from "../semantics.ts";
import { FLOAT, isSignalling, magnitude } from "../softfloat/format.ts";
import { ROUND } from "../softfloat/rounding.ts";
import { MXCSR } from "../state.ts";
import { CONVERT } from "./exact-conversion.ts";
import { FEATURE } from "./feature.ts";
import { raiseFloat, settled } from "./float-exceptions.ts";
import {
  bitsLane,
  DOUBLE,
  floatLane,
  narrow,
  packed,
  quick,
  type Shape,
  SINGLE,
  scalar,
  setLane,
  toBits,
  toFloat,
} from "./float-shape.ts";
import { splat, useSse, ZERO } from "./state.ts";

/** Truncation (CVTT...) ignores MXCSR.RC. */
type Mode = "mxcsr" | "truncate";

function roundingMode(x: Env, mode: Mode): Val | number {
  return mode === "truncate" ? ROUND.ZERO : x.get(MXCSR).bits(FLOAT.RC_SHIFT, 2);
}

/** An inexact integer has no flag to record, and the rounding is the one that the host's operation does. */
function settledFor(x: Env, mode: Mode): Val {
  const precise = FLOAT.PM | FLOAT.PE;
  return mode === "mxcsr" ? settled(x) : x.get(MXCSR).and(precise).eq(precise);
}

/** Takes `fast` where the condition holds; else the lanes that `slow` computes, their flags raised together, and `rare` behind that. */
function orExact(
  x: Env,
  condition: Val,
  fast: Val,
  slow: (result: ReturnType<Env["call"]>) => Val,
  rare: (result: Val) => void = () => undefined,
): Val {
  const { c } = x;
  const result = c.local(fast.type, fast);
  c.if(
    condition,
    () => {},
    () => {
      x.invoke(raiseFloat, slow(result));
      rare(result);
    },
    "likely",
  );
  return result;
}

/** The exact result of a scalar conversion of the source, as flags for `orExact`. */
function scalarExact(x: Env, s: Shape, convert: Helper, ...args: (Val | number)[]) {
  return (result: ReturnType<Env["call"]>): Val => {
    const [bits, flags] = x.callMany(convert, ...args);
    x.c.set(result, toFloat(s, narrow(s, bits)));
    return flags;
  };
}

/** Behind the exact result of an instruction that tells that what it gives is ordinary. */
function unlessOrdinary(x: Sem, s: Shape) {
  return (result: Val): void => x.unlessOrdinary(scalar.ordinary(s, result).eqz(), () => x.writeFloat(0, result));
}

/** The same for lanes: each call's arguments come from the lane's number. */
function lanesExact(x: Env, to: Shape, count: number, convert: Helper, args: (lane: number) => (Val | number)[]) {
  return (result: ReturnType<Env["call"]>): Val => {
    const { c } = x;
    const flags = c.local("i32", 0);
    c.set(result, ZERO);
    for (let lane = 0; lane < count; lane++) {
      const [bits, raised] = x.callMany(convert, ...args(lane));
      c.set(result, setLane(to, result, lane, narrow(to, bits)));
      c.set(flags, flags.or(raised));
    }
    return flags;
  };
}

// Integers to floating point

function integerToScalar(s: Shape, feature: string, row: string): Instruction {
  return {
    name: s === SINGLE ? "CVTSI2SS" : "CVTSI2SD",
    rows: [row],
    feature,
    semantics: (x) => {
      useSse(x);
      const source = x.read(1);
      const fast = op(`${s.scalar}.convert_${source.type}_s`, source);
      const exact = s === DOUBLE && source.type === "i32";
      const slow = scalarExact(x, s, CONVERT.fromInteger[s.format.bits], source.sx(), x.get(MXCSR));
      x.writeFloat(0, exact ? fast : orExact(x, settled(x), fast, slow));
      x.setOrdinary(0, s.scalar);
    },
  };
}

/** Four signed doublewords to binary32; `count` of them matter. */
export function doublewordsToSingles(x: Env, source: Val, count: number): Val {
  const args = (lane: number): (Val | number)[] => [laneOp("i32x4.extract_lane", [lane], source).sx(), x.get(MXCSR)];
  const fast = op("f32x4.convert_i32x4_s", source);
  return orExact(x, settled(x), fast, lanesExact(x, SINGLE, count, CONVERT.fromInteger[32], args));
}

// Floating point to integers

function scalarToInteger(x: Sem, s: Shape, mode: Mode): Val {
  const { c } = x;
  const type = x.bits(0) === 64 ? "i64" : "i32";
  const width = type === "i64" ? 64 : 32;
  const value = x.readFloat(1, s.scalar);
  const r = c.let(op(`${s.scalar}.${mode === "truncate" ? "trunc" : "nearest"}`, value));
  const inRange = op(`${s.scalar}.ge`, r, -(2 ** (width - 1))).and(op(`${s.scalar}.lt`, r, 2 ** (width - 1)));
  const fast = op(`${type}.trunc_sat_${s.scalar}_s`, r);
  const good = inRange.and(op(`${s.scalar}.eq`, r, value).or(settledFor(x, mode)));
  return orExact(x, good, fast, (result) => {
    const convert = CONVERT.toInteger[s.format.bits];
    const [bits, flags] = x.callMany(convert, toBits(s, value).zx(), width, roundingMode(x, mode), x.get(MXCSR));
    c.set(result, type === "i32" ? bits.wrap() : bits);
    return flags;
  });
}

function toGeneral(name: string, feature: string, row: string, s: Shape, mode: Mode): Instruction {
  return {
    name,
    rows: [`${row} /r: Gy, W${s.letter}`],
    feature,
    semantics: (x) => {
      useSse(x);
      x.write(0, scalarToInteger(x, s, mode));
    },
  };
}

/** Lanes to signed doublewords from the bottom up, zeros above; of `count` lanes. */
export function vectorToDoublewords(x: Env, s: Shape, source: Val, count: number, mode: Mode): Val {
  const { c } = x;
  const r = c.let(op(`${s.packed}.${mode === "truncate" ? "trunc" : "nearest"}`, source));
  const low = s === SINGLE ? splat(32, 0xcf00_0000n) : splat(64, 0xc1e0_0000_0000_0000n);
  const high = s === SINGLE ? splat(32, 0x4f00_0000n) : splat(64, 0x41e0_0000_0000_0000n);
  const inRange = op("v128.and", op(`${s.packed}.ge`, r, low), op(`${s.packed}.lt`, r, high));
  const fast = op(s === SINGLE ? "i32x4.trunc_sat_f32x4_s" : "i32x4.trunc_sat_f64x2_s_zero", r);
  const exact = packed.all(s, op(`${s.packed}.eq`, r, source));
  const good = packed.all(s, inRange).and(exact.or(settledFor(x, mode)));
  const args = (lane: number): (Val | number)[] => [bitsLane(s, source, lane), 32, roundingMode(x, mode), x.get(MXCSR)];
  return orExact(x, good, fast, lanesExact(x, SINGLE, count, CONVERT.toInteger[s.format.bits], args));
}

function vector(name: string, feature: string, row: string, compute: (x: Sem, source: Val) => Val): Instruction {
  return {
    name,
    rows: [row],
    feature,
    semantics: (x) => {
      useSse(x);
      const source = x.bits(1) === 128 ? x.readAligned(1) : x.c.let(op("i64x2.splat", x.read(1)));
      x.write(0, compute(x, source));
    },
  };
}

// Between the formats

function singlesToDoubles(x: Sem, source: Val): Val {
  const args = (lane: number): (Val | number)[] => [bitsLane(SINGLE, source, lane), x.get(MXCSR)];
  return orExact(
    x,
    packed.all(SINGLE, packed.ordinary(SINGLE, source)),
    op("f64x2.promote_low_f32x4", source),
    lanesExact(x, DOUBLE, 2, CONVERT.widen, args),
  );
}

function doublesToSingles(x: Sem, source: Val): Val {
  const { c } = x;
  const r = c.let(op("f32x4.demote_f64x2_zero", source));
  const safe = op("i32x4.bitmask", packed.safeResult(SINGLE, r)).and(3).eq(3);
  const args = (lane: number): (Val | number)[] => [bitsLane(DOUBLE, source, lane), x.get(MXCSR)];
  return orExact(x, settled(x).and(safe), r, lanesExact(x, SINGLE, 2, CONVERT.narrow, args));
}

function singleToDouble(x: Sem): void {
  useSse(x);
  const value = x.readFloat(1, "f32");
  const fast = op("f64.promote_f32", value);
  if (!x.isMemory(1) && x.isOrdinary(1, "f32")) x.writeFloat(0, fast);
  else {
    const exact = scalarExact(x, DOUBLE, CONVERT.widen, toBits(SINGLE, value).zx(), x.get(MXCSR));
    x.writeFloat(0, orExact(x, scalar.ordinary(SINGLE, value), fast, exact, unlessOrdinary(x, DOUBLE)));
  }
  x.setOrdinary(0, "f64");
}

function doubleToSingle(x: Sem): void {
  useSse(x);
  const value = x.readFloat(1, "f64");
  const r = x.c.let(op("f32.demote_f64", value));
  const exact = scalarExact(x, SINGLE, CONVERT.narrow, toBits(DOUBLE, value), x.get(MXCSR));
  x.writeFloat(0, orExact(x, quick.scalarResult(x, SINGLE, r), r, exact, unlessOrdinary(x, SINGLE)));
  x.setOrdinary(0, "f32");
}

// Rounding to integral values

/** (source, immediate, mxcsr) to (result, flags). Bit 2 of the immediate chooses MXCSR.RC, bit 3 suppresses the precision exception; denormal
 *  operands raise nothing (SDM Vol. 2B ROUNDPD). */
function integral(s: Shape): Helper {
  return helper(`integral${s.packed}`, ["v128", "i32", "i32"], ["v128", "i32"], (x, source, immediate, mxcsr) => {
    const { c } = x;
    const value = c.local("v128", source);
    c.if(mxcsr.and(FLOAT.DAZ), () => {
      const keep = op(`${s.packed}.ge`, packed.abs(s, value), splat(s.format.bits, s.format.leastNormal));
      const nan = op(`${s.packed}.ne`, value, value);
      const sign = splat(s.format.bits, s.format.sign);
      c.set(value, op("v128.and", value, op("v128.or", op("v128.or", keep, nan), sign)));
    });
    const mode = select(immediate.and(4), mxcsr.bits(FLOAT.RC_SHIFT, 2), immediate.and(3));
    const result = c.local("v128");
    const use = (name: string) => (): void => c.set(result, op(`${s.packed}.${name}`, value));
    c.switch(
      mode,
      [
        [[ROUND.NEAREST], use("nearest")],
        [[ROUND.DOWN], use("floor")],
        [[ROUND.UP], use("ceil")],
      ],
      use("trunc"),
    );
    const isNumber = c.let(op(`${s.packed}.eq`, value, value));
    const changed = op("v128.and", op(`${s.packed}.ne`, result, value), isNumber);
    const flags = c.local("i32", op("v128.any_true", changed).and(immediate.and(8).eqz()).shl(5));
    c.if(packed.all(s, isNumber).eqz(), () => {
      const quiet = op("v128.or", value, splat(s.format.bits, s.format.quiet));
      c.set(result, op("v128.bitselect", result, quiet, isNumber));
      for (let lane = 0; lane < s.lanes; lane++) {
        const mag = c.let(magnitude(s.format, bitsLane(s, value, lane)));
        c.set(flags, flags.or(isSignalling(s.format, mag)));
      }
    });
    x.done(result, flags);
  });
}

const INTEGRAL = { 32: integral(SINGLE), 64: integral(DOUBLE) } as const;

function roundVector(s: Shape) {
  return (x: Sem): void => {
    useSse(x);
    const source = x.readAligned(1);
    const [result, flags] = x.callMany(INTEGRAL[s.format.bits], source, x.immediate(), x.get(MXCSR));
    x.invoke(raiseFloat, flags);
    x.write(0, result);
  };
}

function roundScalar(s: Shape) {
  return (x: Sem): void => {
    useSse(x);
    // The other lanes are zero and raise nothing.
    const lone = setLane(s, ZERO, 0, toBits(s, x.readFloat(1, s.scalar)));
    const [result, flags] = x.callMany(INTEGRAL[s.format.bits], lone, x.immediate(), x.get(MXCSR));
    x.invoke(raiseFloat, flags);
    x.writeFloat(0, floatLane(s, result, 0));
  };
}

const doublewordsToDoubles = (_: Sem, source: Val): Val => op("f64x2.convert_low_i32x4_s", source);

export const SSE_CONVERSIONS: InstructionGroup = [
  integerToScalar(SINGLE, FEATURE.SSE, "F3 0F 2A /r: Vx, Ey"),
  integerToScalar(DOUBLE, FEATURE.SSE2, "F2 0F 2A /r: Vx, Ey"),
  toGeneral("CVTTSS2SI", FEATURE.SSE, "F3 0F 2C", SINGLE, "truncate"),
  toGeneral("CVTTSD2SI", FEATURE.SSE2, "F2 0F 2C", DOUBLE, "truncate"),
  toGeneral("CVTSS2SI", FEATURE.SSE, "F3 0F 2D", SINGLE, "mxcsr"),
  toGeneral("CVTSD2SI", FEATURE.SSE2, "F2 0F 2D", DOUBLE, "mxcsr"),
  vector("CVTPS2PD", FEATURE.SSE2, "NP 0F 5A /r: Vx, Wq", singlesToDoubles),
  vector("CVTPD2PS", FEATURE.SSE2, "66 0F 5A /r: Vx, Wx", doublesToSingles),
  { name: "CVTSS2SD", rows: ["F3 0F 5A /r: Vx, Wd"], feature: FEATURE.SSE2, semantics: singleToDouble },
  { name: "CVTSD2SS", rows: ["F2 0F 5A /r: Vx, Wq"], feature: FEATURE.SSE2, semantics: doubleToSingle },
  vector("CVTDQ2PS", FEATURE.SSE2, "NP 0F 5B /r: Vx, Wx", (x, source) => doublewordsToSingles(x, source, 4)),
  vector("CVTPS2DQ", FEATURE.SSE2, "66 0F 5B /r: Vx, Wx", (x, source) =>
    vectorToDoublewords(x, SINGLE, source, 4, "mxcsr"),
  ),
  vector("CVTTPS2DQ", FEATURE.SSE2, "F3 0F 5B /r: Vx, Wx", (x, source) =>
    vectorToDoublewords(x, SINGLE, source, 4, "truncate"),
  ),
  vector("CVTTPD2DQ", FEATURE.SSE2, "66 0F E6 /r: Vx, Wx", (x, source) =>
    vectorToDoublewords(x, DOUBLE, source, 2, "truncate"),
  ),
  vector("CVTDQ2PD", FEATURE.SSE2, "F3 0F E6 /r: Vx, Wq", doublewordsToDoubles),
  vector("CVTPD2DQ", FEATURE.SSE2, "F2 0F E6 /r: Vx, Wx", (x, source) =>
    vectorToDoublewords(x, DOUBLE, source, 2, "mxcsr"),
  ),
  { name: "ROUNDPS", rows: ["66 0F 3A 08 /r: Vx, Wx, Ib"], feature: FEATURE.SSE41, semantics: roundVector(SINGLE) },
  { name: "ROUNDPD", rows: ["66 0F 3A 09 /r: Vx, Wx, Ib"], feature: FEATURE.SSE41, semantics: roundVector(DOUBLE) },
  { name: "ROUNDSS", rows: ["66 0F 3A 0A /r: Vx, Wd, Ib"], feature: FEATURE.SSE41, semantics: roundScalar(SINGLE) },
  { name: "ROUNDSD", rows: ["66 0F 3A 0B /r: Vx, Wq, Ib"], feature: FEATURE.SSE41, semantics: roundScalar(DOUBLE) },
];
