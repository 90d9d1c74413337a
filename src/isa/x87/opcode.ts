// FOP, the opcode of the last x87 instruction. As on processors since the Pentium 4 it is kept only for instructions that raise an unmasked
// exception (Intel SDM Vol. 1 8.1.9.1), so it is read from the code bytes then and costs nothing otherwise.

import { i32, type Val } from "../../wasm/value.ts";
import { helper, hostAddress } from "../helper.ts";
import { in64BitMode, linearAddress } from "../segmentation.ts";
import { FIP, FOP, SREG } from "../state.ts";

const MAXIMUM_LENGTH = 15;
const ESCAPE = 0xd8;
const FOP_MASK = 0x7ff;

/** Finds the escape byte behind the prefixes of the instruction at FIP. Where its bytes cannot be read FOP stays as it was. */
export const recordOpcode = helper("x87RecordOpcode", [], [], (x) => {
  const { c } = x;
  const at = c.local("i64", x.get(FIP));
  const left = c.local("i32", MAXIMUM_LENGTH);
  const wide = c.let(in64BitMode(x));
  const byte = (): Val => {
    const host = x.call(hostAddress, x.call(linearAddress, i32(SREG.CS), at), 0);
    c.if(host.eq(-1), () => x.done());
    c.set(at, at.add(1));
    c.if(wide.eqz(), () => c.set(at, at.and(0xffffffffn)));
    return c.let(x.ram.ld8u(host));
  };
  c.loop((next) => {
    const first = byte();
    c.if(first.and(0xf8).eq(ESCAPE), () => {
      const second = byte();
      x.put(FOP, first.shl(8).or(second).and(FOP_MASK));
      x.done();
    });
    c.set(left, left.sub(1));
    c.brIf(next, left);
  });
  x.done();
});
