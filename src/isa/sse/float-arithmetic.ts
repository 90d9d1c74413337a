// Floating-point arithmetic of SSE to SSE4.1 (Intel SDM Vol. 1 10.4.1.2, 11.4.1.2, 12.3; the pages of the instructions in Vol. 2A and 2B).
// The host computes where operands and results are normal and MXCSR asks for nothing else (float-exceptions.ts); all other cases are
// computed in integers (exact.ts).

import { op, type Val } from "../../wasm/value.ts";
import { type Helper, helper } from "../helper.ts";
import type { Instruction, InstructionGroup } from "../instruction.ts";
import type { Env, Sem } from "../semantics.ts";
import { MXCSR } from "../state.ts";
import { type BinaryOperation, exact } from "./exact.ts";
import { FEATURE } from "./feature.ts";
import {
  bitsLane,
  DOUBLE,
  floatLane,
  narrow,
  packed,
  type Shape,
  SINGLE,
  scalar,
  setLane,
  toBits,
  toFloat,
} from "./float-shape.ts";
import {
  type HostOperation,
  hostOperation,
  hostOrExact,
  packedForm,
  scalarForm,
  writeHostOrExact,
} from "./host-arithmetic.ts";
import { bitselect, lanes, shuffleLanes, splat, useSse, ZERO } from "./state.ts";

type Operation = BinaryOperation | "addsub";

/** The operation of each lane. */
function operationOf(operation: Operation, lane: number): BinaryOperation {
  if (operation !== "addsub") return operation;
  return lane % 2 === 0 ? "sub" : "add";
}

/** (destination, source, mxcsr) to (result, flags of all lanes). */
function packedExact(s: Shape, operation: Operation): Helper {
  return helper(`${operation}${s.packed}`, ["v128", "v128", "i32"], ["v128", "i32"], (x, a, b, mxcsr) => {
    const { c } = x;
    const result = c.local("v128", a);
    const flags = c.local("i32", 0);
    for (let lane = 0; lane < s.lanes; lane++) {
      const compute = exact(s.format)[operationOf(operation, lane)];
      const [bits, raised] = x.callMany(compute, bitsLane(s, a, lane), bitsLane(s, b, lane), mxcsr);
      c.set(result, setLane(s, result, lane, narrow(s, bits)));
      c.set(flags, flags.or(raised));
    }
    x.done(result, flags);
  });
}

/** Lanes whose result is zero for a reason that raises nothing. */
function exactZero(s: Shape, operation: Operation, r: Val, a: Val, b: Val): Val {
  const zero = packed.isZero(s, r);
  if (operation === "mul") {
    return op("v128.and", zero, op("v128.or", packed.isZero(s, a), packed.isZero(s, b)));
  }
  return operation === "div" ? op("v128.and", zero, packed.isZero(s, a)) : zero;
}

function packedHost(s: Shape, operation: Operation, a: Val, b: Val): Val {
  const native = (name: string): Val => op(`${s.packed}.${name}`, a, b);
  return operation === "addsub"
    ? shuffleLanes(native("sub"), native("add"), 16 / s.lanes, s.lanes === 4 ? [0, 5, 2, 7] : [0, 3])
    : native(operation);
}

function packedOperation(s: Shape, operation: Operation): HostOperation {
  const compute = packedExact(s, operation);
  return hostOperation(
    `${s.packed}.${operation}`,
    packedForm(s),
    2,
    (a, b) => packedHost(s, operation, a, b),
    (r, a, b) => exactZero(s, operation, r, a, b),
    (x, a, b) => {
      const [value, flags] = x.callMany(compute, a, b, x.get(MXCSR));
      return [value, flags];
    },
  );
}

const PACKED = {
  32: {
    add: packedOperation(SINGLE, "add"),
    sub: packedOperation(SINGLE, "sub"),
    mul: packedOperation(SINGLE, "mul"),
    div: packedOperation(SINGLE, "div"),
    addsub: packedOperation(SINGLE, "addsub"),
  },
  64: {
    add: packedOperation(DOUBLE, "add"),
    sub: packedOperation(DOUBLE, "sub"),
    mul: packedOperation(DOUBLE, "mul"),
    div: packedOperation(DOUBLE, "div"),
    addsub: packedOperation(DOUBLE, "addsub"),
  },
} as const;

/** A packed operation on fixed vectors, with its exceptions. */
function packedFloat(x: Sem, s: Shape, operation: Operation, a: Val, b: Val): Val {
  return hostOrExact(x, PACKED[s.format.bits][operation], [a, b], [a, b]);
}

/** A packed operation that is a whole instruction. */
function packedArithmetic(s: Shape, operation: Operation) {
  return (x: Sem): void => {
    useSse(x);
    const b = x.readAligned(1);
    const a = x.read(0);
    writeHostOrExact(x, PACKED[s.format.bits][operation], [
      [0, a],
      [1, b],
    ]);
  };
}

function packedInstruction(
  name: string,
  feature: string,
  row: string,
  compute: (x: Sem, a: Val, b: Val) => Val,
): Instruction {
  return {
    name,
    rows: [`${row} /r: Vx, Wx`],
    feature,
    semantics: (x) => {
      useSse(x);
      const source = x.readAligned(1);
      x.write(0, compute(x, x.read(0), source));
    },
  };
}

/** Value and flags of an exact helper for scalars. */
function scalarExact(x: Env, s: Shape, compute: Helper, values: readonly Val[]): readonly [Val, Val] {
  const [bits, flags] = x.callMany(compute, ...values.map((value) => toBits(s, value).zx()), x.get(MXCSR));
  return [toFloat(s, narrow(s, bits)), flags];
}

function scalarArithmetic(s: Shape, name: BinaryOperation) {
  const operation = hostOperation(
    `${s.scalar}.${name}`,
    scalarForm(s),
    2,
    (a, b) => op(`${s.scalar}.${name}`, a, b),
    (r, a, b) => {
      const zero = scalar.isZero(s, r);
      if (name === "mul") return zero.and(scalar.isZero(s, a).or(scalar.isZero(s, b)));
      return name === "div" ? zero.and(scalar.isZero(s, a)) : zero;
    },
    (x, a, b) => scalarExact(x, s, exact(s.format)[name], [a, b]),
  );
  return (x: Sem): void => {
    useSse(x);
    const b = x.readFloat(1, s.scalar);
    const a = x.readFloat(0, s.scalar);
    writeHostOrExact(x, operation, [
      [0, a],
      [1, b],
    ]);
  };
}

function scalarRoot(s: Shape) {
  const operation = hostOperation(
    `${s.scalar}.sqrt`,
    scalarForm(s),
    1,
    (b) => op(`${s.scalar}.sqrt`, b),
    (r) => scalar.isZero(s, r),
    (x, b) => scalarExact(x, s, exact(s.format).sqrt, [b]),
  );
  return (x: Sem): void => {
    useSse(x);
    writeHostOrExact(x, operation, [[1, x.readFloat(1, s.scalar)]]);
  };
}

function packedRootExact(s: Shape): Helper {
  return helper(`sqrt${s.packed}`, ["v128", "i32"], ["v128", "i32"], (x, b, mxcsr) => {
    const { c } = x;
    const result = c.local("v128", b);
    const flags = c.local("i32", 0);
    for (let lane = 0; lane < s.lanes; lane++) {
      const [bits, raised] = x.callMany(exact(s.format).sqrt, bitsLane(s, b, lane), mxcsr);
      c.set(result, setLane(s, result, lane, narrow(s, bits)));
      c.set(flags, flags.or(raised));
    }
    x.done(result, flags);
  });
}

function packedRoot(s: Shape) {
  const compute = packedRootExact(s);
  const operation = hostOperation(
    `${s.packed}.sqrt`,
    packedForm(s),
    1,
    (b) => op(`${s.packed}.sqrt`, b),
    (r) => packed.isZero(s, r),
    (x, b) => {
      const [value, flags] = x.callMany(compute, b, x.get(MXCSR));
      return [value, flags];
    },
  );
  return (x: Sem): void => {
    useSse(x);
    writeHostOrExact(x, operation, [[1, x.readAligned(1)]]);
  };
}

/** RCPPS and RSQRTPS on all lanes. Denormals count as zeros, tiny results are zero, no exceptions; the precision is more than the 12 bits
 *  that are promised (SDM Vol. 2B RCPPS, RSQRTPS). */
function approximate(x: Env, source: Val, root: boolean): Val {
  const { c } = x;
  const flushed = (value: Val): Val => {
    const fixed = c.let(value);
    const keep = op("f32x4.ge", packed.abs(SINGLE, fixed), splat(32, 0x0080_0000n));
    return op("v128.and", fixed, op("v128.or", keep, splat(32, 0x8000_0000n)));
  };
  const value = c.let(flushed(source));
  const radical = root ? op("f32x4.sqrt", value) : value;
  const r = flushed(op("f32x4.div", splat(32, 0x3f80_0000n), radical));
  const invalid = op("f32x4.lt", value, ZERO);
  const number = root ? bitselect(splat(32, 0xffc0_0000n), r, invalid) : r;
  return bitselect(op("v128.or", source, splat(32, 0x0040_0000n)), number, op("f32x4.ne", source, source));
}

function approximation(name: string, opcode: string, root: boolean): InstructionGroup {
  return [
    packedInstruction(`${name}PS`, FEATURE.SSE, `NP ${opcode}`, (x, _, b) => approximate(x, b, root)),
    {
      name: `${name}SS`,
      rows: [`F3 ${opcode} /r: Vx, Wd`],
      feature: FEATURE.SSE,
      semantics: (x) => {
        useSse(x);
        const source = x.c.let(op("i32x4.splat", x.read(1)));
        x.writeFloat(0, floatLane(SINGLE, approximate(x, source, root), 0));
      },
    },
  ];
}

/** The four forms of an operation: PS, PD, SS, SD. */
function fourForms(
  name: string,
  opcode: string,
  packedOne: (s: Shape) => (x: Sem) => void,
  scalarOne: (s: Shape) => (x: Sem) => void,
): InstructionGroup {
  const rows = (prefix: string, source: string): string[] => [`${prefix} ${opcode} /r: Vx, W${source}`];
  return [
    { name: `${name}PS`, rows: rows("NP", "x"), feature: FEATURE.SSE, semantics: packedOne(SINGLE) },
    { name: `${name}PD`, rows: rows("66", "x"), feature: FEATURE.SSE2, semantics: packedOne(DOUBLE) },
    { name: `${name}SS`, rows: rows("F3", "d"), feature: FEATURE.SSE, semantics: scalarOne(SINGLE) },
    { name: `${name}SD`, rows: rows("F2", "q"), feature: FEATURE.SSE2, semantics: scalarOne(DOUBLE) },
  ];
}

function arithmetic(name: string, opcode: string, operation: BinaryOperation): InstructionGroup {
  return fourForms(
    name,
    opcode,
    (s) => packedArithmetic(s, operation),
    (s) => scalarArithmetic(s, operation),
  );
}

function horizontal(s: Shape, operation: BinaryOperation) {
  const even = s.lanes === 4 ? [0, 2, 4, 6] : [0, 2];
  const odd = even.map((lane) => lane + 1);
  return (x: Sem): void => {
    useSse(x);
    const b = x.readAligned(1);
    const a = x.read(0);
    const first = x.c.let(shuffleLanes(a, b, 16 / s.lanes, even));
    const second = x.c.let(shuffleLanes(a, b, 16 / s.lanes, odd));
    x.write(0, packedFloat(x, s, operation, first, second));
  };
}

/** Alternate forms of SSE3: PD with prefix 66, PS with F2. */
function alternate(name: string, opcode: string, semantics: (s: Shape) => (x: Sem) => void): InstructionGroup {
  return [
    { name: `${name}PD`, rows: [`66 ${opcode} /r: Vx, Wx`], feature: FEATURE.SSE3, semantics: semantics(DOUBLE) },
    { name: `${name}PS`, rows: [`F2 ${opcode} /r: Vx, Wx`], feature: FEATURE.SSE3, semantics: semantics(SINGLE) },
  ];
}

/** Dot products: bits 7:4 choose the products, 3:0 the places of the sum; lanes not chosen raise nothing. Each step raises its exceptions
 *  before the next (SDM Vol. 2A DPPS, DPPD). */
function dotProduct(name: string, row: string, s: Shape): Instruction {
  const width = 16 / s.lanes;
  const chosen = (immediate: Val): Val => {
    const numbers = s.lanes === 4 ? lanes([1, 2, 4, 8]) : lanes([1, 1, 2, 2]);
    return op("i32x4.eq", op("v128.and", op("i32x4.splat", immediate), numbers), numbers);
  };
  return {
    name,
    rows: [`${row} /r: Vx, Wx, Ib`],
    feature: FEATURE.SSE41,
    semantics: (x) => {
      useSse(x);
      const { c } = x;
      const source = x.readAligned(1);
      const immediate = c.let(x.immediate());
      const factors = c.let(chosen(immediate.shrU(4)));
      const a = c.let(op("v128.and", x.read(0), factors));
      const b = c.let(op("v128.and", source, factors));
      const products = packedFloat(x, s, "mul", a, b);
      const pairs = (odd: 0 | 1): Val =>
        c.let(shuffleLanes(products, ZERO, width, s.lanes === 4 ? [odd, 2 + odd, 4, 4] : [odd, 2]));
      let total = packedFloat(x, s, "add", pairs(0), pairs(1));
      if (s.lanes === 4) {
        const single = (lane: number): Val => c.let(shuffleLanes(total, ZERO, 4, [lane, 4, 4, 4]));
        total = packedFloat(x, s, "add", single(0), single(1));
      }
      const everywhere = shuffleLanes(total, total, width, s.lanes === 4 ? [0, 0, 0, 0] : [0, 0]);
      x.write(0, op("v128.and", everywhere, chosen(immediate)));
    },
  };
}

export const SSE_ARITHMETIC: InstructionGroup = [
  ...arithmetic("ADD", "0F 58", "add"),
  ...arithmetic("MUL", "0F 59", "mul"),
  ...arithmetic("SUB", "0F 5C", "sub"),
  ...arithmetic("DIV", "0F 5E", "div"),
  ...fourForms("SQRT", "0F 51", packedRoot, scalarRoot),
  ...approximation("RSQRT", "0F 52", true),
  ...approximation("RCP", "0F 53", false),
  ...alternate("HADD", "0F 7C", (s) => horizontal(s, "add")),
  ...alternate("HSUB", "0F 7D", (s) => horizontal(s, "sub")),
  ...alternate("ADDSUB", "0F D0", (s) => packedArithmetic(s, "addsub")),
  dotProduct("DPPS", "66 0F 3A 40", SINGLE),
  dotProduct("DPPD", "66 0F 3A 41", DOUBLE),
];
