// Packed BCD integers of 18 digits (Intel SDM Vol. 1 4.7.2 and table 4-4; Vol. 2A FBLD, FBSTP).

import { i32, i64, type Val } from "../../wasm/value.ts";
import { helper } from "../helper.ts";
import type { Env } from "../semantics.ts";
import { FCW } from "../state.ts";
import { KIND, roundingMode, signOf, x87FromInteger, x87Kind, x87RoundInteger, x87Unpack } from "./format.ts";
import { STACK_UNDERFLOW, STATUS } from "./state.ts";

const LARGEST = 10n ** 18n - 1n;
const INDEFINITE_LOW = 3n << 62n;
const INDEFINITE_HIGH = 0xffff;
const LOW_DIGITS = 16;

/** (low eight bytes, high two bytes) -> (sig, se). Digits above 9, which the manual leaves undefined, count what they say. */
export const x87FromBcd = helper("x87FromBcd", ["i64", "i32"], ["i64", "i32"], (x, low, high) => {
  const { c } = x;
  const value = c.local("i64", high.bits(4, 4).mul(10).add(high.and(15)).zx());
  const rest = c.local("i64", low);
  const left = c.local("i32", LOW_DIGITS);
  c.loop((next) => {
    c.set(value, value.mul(10).add(rest.shrU(60)));
    c.set(rest, rest.shl(4));
    c.set(left, left.sub(1));
    c.brIf(next, left);
  });
  const [sig, se] = x.callMany(x87FromInteger, value);
  x.done(sig, se.or(high.and(0x8000)));
});

/** (filled, sig, se) -> (low, high, flags, stored). */
export const x87ToBcd = helper(
  "x87ToBcd",
  ["i32", "i64", "i32"],
  ["i64", "i32", "i32", "i32"],
  (x, isFilled, sig, se) => {
    const { c } = x;
    const indefinite = (flags: number): void => {
      x.done(INDEFINITE_LOW, INDEFINITE_HIGH, flags, invalidIsMasked(x));
    };
    c.if(isFilled.eqz(), () => indefinite(STACK_UNDERFLOW), undefined, "unlikely");
    c.if(x.call(x87Kind, sig, se).geU(KIND.INFINITY), () => indefinite(STATUS.IE), undefined, "unlikely");
    const [e, normal] = x.callMany(x87Unpack, sig, se);
    const sign = c.let(signOf(se));
    const [magnitude, beyond, flags] = x.callMany(x87RoundInteger, sign, e, normal, roundingMode(x));
    c.if(beyond.or(magnitude.gtU(LARGEST)), () => indefinite(STATUS.IE), undefined, "unlikely");
    const value = c.local("i64", magnitude);
    const low = c.local("i64", i64(0));
    const left = c.local("i32", LOW_DIGITS);
    c.loop((next) => {
      c.set(low, low.shrU(4).or(value.remU(10).shl(60)));
      c.set(value, value.divU(10));
      c.set(left, left.sub(1));
      c.brIf(next, left);
    });
    const high = value.divU(10).shl(4).or(value.remU(10)).wrap();
    x.done(low, high.or(sign.shl(15)), flags, i32(1));
  },
);

function invalidIsMasked(x: Env): Val {
  return x.get(FCW).and(STATUS.IE);
}
