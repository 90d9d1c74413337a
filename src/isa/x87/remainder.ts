// FPREM, FPREM1 and FXTRACT (Intel SDM Vol. 2A; Vol. 1 8.3.5).

import { i32, i64, select, type Val } from "../../wasm/value.ts";
import { helper } from "../helper.ts";
import { divideWide } from "../softfloat/significand.ts";
import { denormalFlag, propagateOne, x87Propagate } from "./arithmetic.ts";
import { BIAS, KIND, MAX_EXPONENT, TOP_BIT, x87FromInteger, x87Kind, x87Pack, x87Unpack } from "./format.ts";
import { CONDITION_CODES, INDEFINITE_SE, INDEFINITE_SIG, STATUS } from "./state.ts";

/** C0, C3, C1 from the low three bits of the quotient. */
function quotientFlags(quotient: Val): Val {
  const bit = (at: number, flag: number): Val => quotient.bits(at, 1).wrap().mul(flag);
  return bit(2, STATUS.C0).or(bit(1, STATUS.C3)).or(bit(0, STATUS.C1));
}

/** The codes that are replaced; C0 and C3 stay where there is no quotient (the manual leaves them undefined). */
const NO_QUOTIENT = STATUS.C2;

/** (aSig, aSe, bSig, bSe, nearest) -> (sig, se, flags, codes replaced): remainder of a by b with the quotient truncated, or rounded to nearest. With exponents
 *  64 or more apart one step reduces the exponent by at least 32 and sets C2. */
export const x87Remainder = helper(
  "x87Remainder",
  ["i64", "i32", "i64", "i32", "i32"],
  ["i64", "i32", "i32", "i32"],
  (x, aSig, aSe, bSig, bSe, nearest) => {
    const { c } = x;
    const aKind = x.call(x87Kind, aSig, aSe);
    const bKind = x.call(x87Kind, bSig, bSe);
    c.if(aKind.geU(KIND.QNAN).or(bKind.geU(KIND.QNAN)), () => {
      const [sig, se, flags] = x.callMany(x87Propagate, aSig, aSe, aKind, bSig, bSe, bKind);
      x.done(sig, se, flags, NO_QUOTIENT);
    });
    c.if(aKind.eq(KIND.INFINITY).or(bKind.eq(KIND.ZERO)), () => {
      x.done(INDEFINITE_SIG, INDEFINITE_SE, STATUS.IE, NO_QUOTIENT);
    });
    const denormal = c.let(denormalFlag(aKind, bKind));
    c.if(aKind.eq(KIND.ZERO), () => x.done(aSig, aSe, denormal, CONDITION_CODES));
    const [ea, sa] = x.callMany(x87Unpack, aSig, aSe);
    const [eb, sb] = x.callMany(x87Unpack, bSig, bSe);
    const distance = c.let(ea.sub(eb));
    const sign = c.local("i32", aSe.shrU(15).and(1));
    const finish = (e: Val, sig: Val, flags: Val): void => {
      c.if(sig.eqz(), () => x.done(0, sign.shl(15), flags, CONDITION_CODES));
      const shift = c.let(sig.clz());
      const [packed, se, raised] = x.callMany(x87Pack, sign, e.sub(shift.wrap()), sig.shl(shift), 0, 64);
      // C1 is a bit of the quotient here; the result is exact, so that only an unmasked underflow can be raised.
      x.done(packed, se, raised.and(~STATUS.C1).or(flags), CONDITION_CODES);
    };

    // Less than half of the divisor, as any number is of an infinity.
    c.if(distance.ltS(select(nearest, i32(-1), 0)).or(bKind.eq(KIND.INFINITY)), () => finish(ea, sa, denormal));

    c.if(
      distance.geS(64),
      () => {
        // As many steps of 32 as leave the exponents 32 to 63 apart come last; this one takes the rest.
        const count = c.let(distance.and(31).or(32).zx());
        const reduced = c.let(select(sa.geU(sb), sa.sub(sb), sa));
        const [, rest] = x.callMany(divideWide, reduced.shrU(i64(64).sub(count)), reduced.shl(count), sb);
        finish(ea.sub(count.wrap()), rest, denormal.or(STATUS.C2));
      },
      undefined,
      "unlikely",
    );

    const quotient = c.local("i64", 0);
    const rest = c.local("i64");
    const e = c.local("i32", eb);
    c.if(
      distance.ltS(0),
      () => {
        c.set(rest, sa);
        c.set(e, ea);
      },
      () => {
        c.set(quotient, sa.geU(sb).zx());
        c.set(rest, select(quotient.wrap(), sa.sub(sb), sa));
        c.if(distance, () => {
          const count = c.let(distance.zx());
          const [low, remainder] = x.callMany(divideWide, rest.shrU(i64(64).sub(count)), rest.shl(count), sb);
          c.set(quotient, quotient.shl(count).add(low));
          c.set(rest, remainder);
        });
      },
    );
    c.if(nearest, () => {
      // Up where the remainder exceeds half of the divisor, or equals it and the quotient is odd.
      c.if(
        distance.ltS(0),
        () => {
          // rest is at twice the scale of the divisor: 2 * rest / 2 against the divisor; never a tie that rounds up, as 0 is even.
          c.if(rest.gtU(sb), () => {
            // divisor - rest, at the scale of rest: 2 * sb - rest.
            c.set(quotient, 1);
            c.set(rest, sb.sub(rest).add(sb));
            c.set(sign, sign.xor(1));
          });
        },
        () => {
          const gap = c.let(sb.sub(rest));
          c.if(rest.gtU(gap).or(rest.eq(gap).and(quotient.wrap().and(1))), () => {
            c.set(quotient, quotient.add(1));
            c.set(rest, gap);
            c.set(sign, sign.xor(1));
          });
        },
      );
    });
    finish(e, rest, quotientFlags(quotient).or(denormal));
  },
);

/** (sig, se) -> (significand sig, se, exponent sig, se, flags) (SDM Vol. 2A FXTRACT). */
export const x87Extract = helper("x87Extract", ["i64", "i32"], ["i64", "i32", "i64", "i32", "i32"], (x, sig, se) => {
  const { c } = x;
  const kind = x.call(x87Kind, sig, se);
  const signBit = c.let(se.and(0x8000));
  c.if(kind.geU(KIND.QNAN), () => {
    const [nan, nanSe, flags] = x.callMany(x87Quiet, sig, se, kind);
    x.done(nan, nanSe, nan, nanSe, flags);
  });
  c.if(kind.eq(KIND.INFINITY), () => x.done(sig, se, TOP_BIT, MAX_EXPONENT, 0));
  c.if(kind.eq(KIND.ZERO), () => x.done(0, se, TOP_BIT, 0x8000 | MAX_EXPONENT, STATUS.ZE));
  const [e, normal] = x.callMany(x87Unpack, sig, se);
  const [exponentSig, exponentSe] = x.callMany(x87FromInteger, e.sx());
  x.done(normal, signBit.or(BIAS), exponentSig, exponentSe, denormalFlag(kind));
});

/** (sig, se, kind) of a NaN or unsupported value -> the NaN that results. */
const x87Quiet = helper("x87Quiet", ["i64", "i32", "i32"], ["i64", "i32", "i32"], (x, sig, se, kind) => {
  propagateOne(x, sig, kind, se);
});
