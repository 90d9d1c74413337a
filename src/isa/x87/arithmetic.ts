// Addition, subtraction, multiplication, division and square root (Intel SDM Vol. 1 8.3.4, tables 4-7 and 8-10; Vol. 2A FADD to FSQRT).
// Each gives significand, sign and exponent, and flags for the status word.

import { i32, i64, select, type Val } from "../../wasm/value.ts";
import { helper } from "../helper.ts";
import type { Env } from "../semantics.ts";
import { ROUND } from "../softfloat/rounding.ts";
import {
  addMagnitudes,
  divideMagnitudes,
  multiplyMagnitudes,
  rootMagnitude,
  subtractMagnitudes,
} from "../softfloat/significand.ts";
import {
  BIAS,
  KIND,
  MAX_EXPONENT,
  precision,
  QUIET_BIT,
  roundingMode,
  signOf,
  TOP_BIT,
  x87Kind,
  x87Pack,
  x87RoundInteger,
  x87Unpack,
} from "./format.ts";
import { empty, INDEFINITE_SE, INDEFINITE_SIG, readStack, STACK_UNDERFLOW, STATUS, x87Result } from "./state.ts";

/** Operations by ModRM.reg of D8; the destination is the first operand. */
export const OPERATION = {
  ADD: 0,
  MULTIPLY: 1,
  SUBTRACT: 4,
  SUBTRACT_REVERSED: 5,
  DIVIDE: 6,
  DIVIDE_REVERSED: 7,
} as const;

/** Results of an invalid operation. */
export function invalid(x: Env): void {
  x.done(INDEFINITE_SIG, INDEFINITE_SE, STATUS.IE);
}

/** DE where one of the kinds is that of a denormal. */
export function denormalFlag(...kinds: Val[]): Val {
  return kinds
    .map((kind) => kind.eq(KIND.DENORMAL))
    .reduce((a, b) => a.or(b))
    .mul(STATUS.DE);
}

/** (aSig, aSe, aKind, bSig, bSe, bKind), one of which is a NaN or not supported: the NaN that results. Of two NaNs the quiet one, of two quiet
 *  or two signalling ones that with the larger significand, of equal ones the positive one (SDM Vol. 1 table 4-7). */
export const x87Propagate = helper(
  "x87Propagate",
  ["i64", "i32", "i32", "i64", "i32", "i32"],
  ["i64", "i32", "i32"],
  (x, aSig, aSe, aKind, bSig, bSe, bKind) => {
    const { c } = x;
    c.if(aKind.eq(KIND.UNSUPPORTED).or(bKind.eq(KIND.UNSUPPORTED)), () => invalid(x));
    const flags = aKind.eq(KIND.SNAN).or(bKind.eq(KIND.SNAN)).mul(STATUS.IE);
    const aNan = aKind.geU(KIND.QNAN);
    const bNan = bKind.geU(KIND.QNAN);
    const largerFirst = aSig.gtU(bSig).or(aSig.eq(bSig).and(aSe.ltU(bSe)));
    const both = select(aKind.eq(bKind), largerFirst, aKind.eq(KIND.QNAN));
    const first = c.let(select(aNan.and(bNan), both, aNan));
    x.done(select(first, aSig, bSig).or(QUIET_BIT), select(first, aSe, bSe), flags);
  },
);

/** One operand that is a NaN or not supported. */
export function propagateOne(x: Env, sig: Val, kind: Val, se: Val): void {
  x.c.if(kind.eq(KIND.UNSUPPORTED), () => invalid(x));
  x.done(sig.or(QUIET_BIT), se, kind.eq(KIND.SNAN).mul(STATUS.IE));
}

const BINARY_PARAMS = ["i64", "i32", "i32", "i64", "i32", "i32", "i32"] as const;
const RESULT = ["i64", "i32", "i32"] as const;

/** (aSig, aSe, aKind, bSig, bSe, bKind, DE flag) for numbers. */
const x87Add = helper("x87Add", BINARY_PARAMS, RESULT, (x, aSig, aSe, aKind, bSig, bSe, bKind, denormal) => {
  const { c } = x;
  const aSign = c.let(signOf(aSe));
  const different = c.let(signOf(aSe.xor(bSe)));
  c.if(
    aKind.eq(KIND.INFINITY).or(bKind.eq(KIND.INFINITY)),
    () => {
      c.if(aKind.eq(bKind).and(different), () => invalid(x));
      x.done(TOP_BIT, select(aKind.eq(KIND.INFINITY), aSe, bSe), denormal);
    },
    undefined,
    "unlikely",
  );
  // A sum that is exactly zero: the sign of both operands, else that of the rounding mode (SDM Vol. 1 4.8.3.1).
  const cancelled = (): Val => roundingMode(x).eq(ROUND.DOWN).shl(15);
  c.if(aSig.or(bSig).eqz(), () => x.done(0, select(different, cancelled(), aSe), denormal));
  const bits = precision(x);
  const [ea, sa] = x.callMany(x87Unpack, aSig, aSe);
  const [eb, sb] = x.callMany(x87Unpack, bSig, bSe);
  const finish = (sign: Val, e: Val, hi: Val, lo: Val): void => {
    const [sig, se, flags] = x.callMany(x87Pack, sign, e, hi, lo, bits);
    x.done(sig, se, flags.or(denormal));
  };
  c.if(different, () => {
    const [swapped, e, hi, lo] = x.callMany(subtractMagnitudes, ea, sa, eb, sb);
    c.if(hi.eqz(), () => x.done(0, cancelled(), denormal));
    finish(aSign.xor(swapped), e, hi, lo);
  });
  const [e, hi, lo] = x.callMany(addMagnitudes, ea, sa, eb, sb);
  finish(aSign, e, hi, lo);
});

const x87Multiply = helper("x87Multiply", BINARY_PARAMS, RESULT, (x, aSig, aSe, aKind, bSig, bSe, bKind, denormal) => {
  const { c } = x;
  const signBit = c.let(aSe.xor(bSe).and(0x8000));
  const zero = c.let(aSig.eqz().or(bSig.eqz()));
  c.if(
    aKind.eq(KIND.INFINITY).or(bKind.eq(KIND.INFINITY)),
    () => {
      c.if(zero, () => invalid(x));
      x.done(TOP_BIT, signBit.or(MAX_EXPONENT), denormal);
    },
    undefined,
    "unlikely",
  );
  c.if(zero, () => x.done(0, signBit, denormal));
  const [ea, sa] = x.callMany(x87Unpack, aSig, aSe);
  const [eb, sb] = x.callMany(x87Unpack, bSig, bSe);
  const [e, hi, lo] = x.callMany(multiplyMagnitudes, ea, sa, eb, sb);
  const [sig, se, flags] = x.callMany(x87Pack, signBit.shrU(15), e, hi, lo, precision(x));
  x.done(sig, se, flags.or(denormal));
});

const x87Divide = helper("x87Divide", BINARY_PARAMS, RESULT, (x, aSig, aSe, aKind, bSig, bSe, bKind, denormal) => {
  const { c } = x;
  const signBit = c.let(aSe.xor(bSe).and(0x8000));
  c.if(
    aKind.eq(KIND.INFINITY).or(bKind.eq(KIND.INFINITY)),
    () => {
      c.if(aKind.eq(bKind), () => invalid(x));
      c.if(aKind.eq(KIND.INFINITY), () => x.done(TOP_BIT, signBit.or(MAX_EXPONENT), denormal));
      x.done(0, signBit, denormal);
    },
    undefined,
    "unlikely",
  );
  c.if(
    bSig.eqz(),
    () => {
      c.if(aSig.eqz(), () => invalid(x));
      // Division by zero goes before a denormal operand (SDM Vol. 1 4.9.2).
      x.done(TOP_BIT, signBit.or(MAX_EXPONENT), STATUS.ZE);
    },
    undefined,
    "unlikely",
  );
  c.if(aSig.eqz(), () => x.done(0, signBit, denormal));
  const [ea, sa] = x.callMany(x87Unpack, aSig, aSe);
  const [eb, sb] = x.callMany(x87Unpack, bSig, bSe);
  const [e, hi, lo] = x.callMany(divideMagnitudes, ea, sa, eb, sb);
  const [sig, se, flags] = x.callMany(x87Pack, signBit.shrU(15), e, hi, lo, precision(x));
  x.done(sig, se, flags.or(denormal));
});

/** (operation, aSig, aSe, bSig, bSe, flags of the operands): DE where a narrower operand was denormal. */
export const x87Operate = helper(
  "x87Operate",
  ["i32", "i64", "i32", "i64", "i32", "i32"],
  RESULT,
  (x, operation, aSig, aSe, bSig, bSe, flags) => {
    const { c } = x;
    const aKind = x.call(x87Kind, aSig, aSe);
    const bKind = x.call(x87Kind, bSig, bSe);
    c.if(
      aKind.geU(KIND.QNAN).or(bKind.geU(KIND.QNAN)),
      () => {
        const [sig, se, raised] = x.callMany(x87Propagate, aSig, aSe, aKind, bSig, bSe, bKind);
        x.done(sig, se, raised);
      },
      undefined,
      "unlikely",
    );
    const denormal = c.let(denormalFlag(aKind, bKind).or(flags));
    const forward = (target: typeof x87Add, negate: "a" | "b" | undefined, swapped: boolean): void => {
      const a: [Val, Val, Val] = [aSig, negate === "a" ? aSe.xor(0x8000) : aSe, aKind];
      const b: [Val, Val, Val] = [bSig, negate === "b" ? bSe.xor(0x8000) : bSe, bKind];
      const results = swapped ? x.callMany(target, ...b, ...a, denormal) : x.callMany(target, ...a, ...b, denormal);
      x.done(...results);
    };
    c.switch(
      operation,
      [
        [[OPERATION.ADD], () => forward(x87Add, undefined, false)],
        [[OPERATION.MULTIPLY], () => forward(x87Multiply, undefined, false)],
        [[OPERATION.SUBTRACT], () => forward(x87Add, "b", false)],
        [[OPERATION.SUBTRACT_REVERSED], () => forward(x87Add, "a", true)],
        [[OPERATION.DIVIDE], () => forward(x87Divide, undefined, false)],
      ],
      () => forward(x87Divide, undefined, true),
    );
    c.unreachable();
  },
);

/** (operation, destination, source, pops): ST(destination) with ST(source). */
export const x87BinaryRegister = helper(
  "x87BinaryRegister",
  ["i32", "i32", "i32", "i32"],
  [],
  (x, operation, destination, source, pops) => {
    const { c } = x;
    c.if(
      empty(x, destination).or(empty(x, source)),
      () => {
        x.invoke(x87Result, destination, INDEFINITE_SIG, INDEFINITE_SE, STACK_UNDERFLOW, pops);
        x.done();
      },
      undefined,
      "unlikely",
    );
    const a = readStack(x, destination);
    const b = readStack(x, source);
    const [sig, se, flags] = x.callMany(x87Operate, operation, a.sig, a.se, b.sig, b.se, 0);
    x.invoke(x87Result, destination, sig, se, flags, pops);
    x.done();
  },
);

/** (operation, sig, se, flags): ST(0) with an operand from memory. */
export const x87BinaryMemory = helper(
  "x87BinaryMemory",
  ["i32", "i64", "i32", "i32"],
  [],
  (x, operation, sig, se, flags) => {
    x.c.if(
      empty(x, 0),
      () => {
        x.invoke(x87Result, 0, INDEFINITE_SIG, INDEFINITE_SE, STACK_UNDERFLOW, 0);
        x.done();
      },
      undefined,
      "unlikely",
    );
    const a = readStack(x, 0);
    const [resultSig, resultSe, raised] = x.callMany(x87Operate, operation, a.sig, a.se, sig, se, flags);
    x.invoke(x87Result, 0, resultSig, resultSe, raised, 0);
    x.done();
  },
);

export const x87SquareRoot = helper("x87SquareRoot", ["i64", "i32"], RESULT, (x, sig, se) => {
  const { c } = x;
  const kind = x.call(x87Kind, sig, se);
  c.if(kind.geU(KIND.QNAN), () => propagateOne(x, sig, kind, se), undefined, "unlikely");
  c.if(sig.eqz(), () => x.done(0, se, 0));
  c.if(signOf(se), () => invalid(x));
  c.if(kind.eq(KIND.INFINITY), () => x.done(sig, se, 0));
  const [e, normal] = x.callMany(x87Unpack, sig, se);
  const [rootE, hi, lo] = x.callMany(rootMagnitude, e, normal);
  const [rootSig, rootSe, flags] = x.callMany(x87Pack, 0, rootE, hi, lo, precision(x));
  x.done(rootSig, rootSe, flags.or(denormalFlag(kind)));
});

/** Rounds to an integral value by the rounding mode. */
export const x87RoundToIntegral = helper("x87RoundToIntegral", ["i64", "i32"], RESULT, (x, sig, se) => {
  const { c } = x;
  const kind = x.call(x87Kind, sig, se);
  c.if(kind.geU(KIND.QNAN), () => propagateOne(x, sig, kind, se), undefined, "unlikely");
  c.if(kind.eq(KIND.INFINITY).or(kind.eq(KIND.ZERO)), () => x.done(sig, se, 0));
  const [e, normal] = x.callMany(x87Unpack, sig, se);
  c.if(e.geS(63), () => x.done(sig, se, 0));
  const sign = c.let(signOf(se));
  const signBit = c.let(sign.shl(15));
  const [magnitude, , flags] = x.callMany(x87RoundInteger, sign, e, normal, roundingMode(x));
  const raised = c.let(flags.or(denormalFlag(kind)));
  c.if(magnitude.eqz(), () => x.done(0, signBit, raised));
  const shift = c.let(magnitude.clz());
  x.done(
    magnitude.shl(shift),
    i32(BIAS + 63)
      .sub(shift.wrap())
      .or(signBit),
    raised,
  );
});

/** Adds the truncated second operand to the exponent of the first: (aSig, aSe, bSig, bSe) (SDM Vol. 2A FSCALE, table 3-42). */
export const x87Scale = helper("x87Scale", ["i64", "i32", "i64", "i32"], RESULT, (x, aSig, aSe, bSig, bSe) => {
  const { c } = x;
  const aKind = x.call(x87Kind, aSig, aSe);
  const bKind = x.call(x87Kind, bSig, bSe);
  c.if(aKind.geU(KIND.QNAN).or(bKind.geU(KIND.QNAN)), () => {
    const [sig, se, flags] = x.callMany(x87Propagate, aSig, aSe, aKind, bSig, bSe, bKind);
    x.done(sig, se, flags);
  });
  const denormal = c.let(denormalFlag(aKind, bKind));
  const signBit = c.let(aSe.and(0x8000));
  c.if(bKind.eq(KIND.INFINITY), () => {
    c.if(signOf(bSe), () => {
      c.if(aKind.eq(KIND.INFINITY), () => invalid(x));
      x.done(0, signBit, denormal);
    });
    c.if(aKind.eq(KIND.ZERO), () => invalid(x));
    x.done(TOP_BIT, signBit.or(MAX_EXPONENT), denormal);
  });
  c.if(aKind.eq(KIND.INFINITY).or(aKind.eq(KIND.ZERO)), () => x.done(aSig, aSe, denormal));
  const [e, hi] = x.callMany(x87Unpack, aSig, aSe);
  const [eb, sb] = x.callMany(x87Unpack, bSig, bSe);
  // Beyond 2^16 the result overflows or underflows whatever the first operand is, even with a wrapped exponent.
  const magnitude = c.let(
    select(eb.ltS(0), i64(0), select(eb.gtS(16), i64(FAR), sb.shrU(i64(63).sub(eb.zx())))).wrap(),
  );
  const by = select(signOf(bSe), magnitude.neg(), magnitude);
  const [sig, se, flags] = x.callMany(x87Pack, signBit.shrU(15), e.add(by), hi, 0, 64);
  x.done(sig, se, flags.or(denormal));
});

const FAR = 1n << 20n;
