// 128-bit products and quotients from 64-bit arithmetic: WebAssembly has no wide multiplication or division.

import { i64, select, type Val } from "../../wasm/value.ts";
import { helper } from "../helper.ts";

const LOW = 0xffffffffn;

/** The high half of an unsigned 64 x 64-bit product, from four 32-bit products. */
export const multiplyHighUnsigned = helper("multiplyHighUnsigned", ["i64", "i64"], ["i64"], (x, a, b) => {
  const { c } = x;
  const a0 = c.let(a.and(LOW));
  const a1 = c.let(a.shrU(32));
  const b0 = c.let(b.and(LOW));
  const b1 = c.let(b.shrU(32));
  const middle = c.let(a1.mul(b0).add(a0.mul(b0).shrU(32)));
  const cross = c.let(a0.mul(b1).add(middle.and(LOW)));
  x.done(a1.mul(b1).add(middle.shrU(32)).add(cross.shrU(32)));
});

/** The high half of a signed product. Factors that fit 32 bits, the usual case, need one multiplication. */
export const multiplyHighSigned = helper("multiplyHighSigned", ["i64", "i64"], ["i64"], (x, a, b) => {
  x.c.if(a.extend(32).eq(a).and(b.extend(32).eq(b)), () => x.done(a.mul(b).shrS(63)));
  const high = x.call(multiplyHighUnsigned, a, b);
  x.done(high.sub(a.shrS(63).and(b)).sub(b.shrS(63).and(a)));
});

/** (high, low, divisor) -> (quotient, remainder), unsigned, with high below the divisor (so the quotient fits).
 *  Schoolbook division in base 2^32 with a normalised divisor (Knuth, TAOCP Vol. 2, 4.3.1, algorithm D). */
export const divide128 = helper("divide128", ["i64", "i64", "i64"], ["i64", "i64"], (x, high, low, divisor) => {
  const { c } = x;
  c.if(high.eqz(), () => x.done(low.divU(divisor), low.remU(divisor)));
  const shift = c.let(divisor.clz());
  const d = c.let(divisor.shl(shift));
  const d1 = c.let(d.shrU(32));
  const d0 = c.let(d.and(LOW));
  // Bits of the low half that the normalisation moves up; with a shift of 0 there are none (a shift by 64 would be one by 0).
  const carried = select(shift.eqz(), i64(0), low.shrU(shift.neg().and(63)));
  const n = c.local("i64", high.shl(shift).or(carried));
  const below = c.let(low.shl(shift));
  const digit = (next: Val): Val => {
    const q = c.local("i64", n.divU(d1));
    const r = c.local("i64", n.sub(q.mul(d1)));
    c.block((end) => {
      c.loop((head) => {
        c.brIf(end, q.leU(LOW).and(q.mul(d0).leU(r.shl(32).or(next))));
        c.set(q, q.sub(1));
        c.set(r, r.add(d1));
        c.brIf(head, r.leU(LOW));
      });
    });
    c.set(n, n.shl(32).or(next).sub(q.mul(d)));
    return q;
  };
  const q1 = digit(c.let(below.shrU(32)));
  const q0 = digit(c.let(below.and(LOW)));
  x.done(q1.shl(32).or(q0), n.shrU(shift));
});
