// Segmentation of implicit memory operands and of the universal memory form: base, limit and type checks
// (SDM Vol. 3A 5.3 "Limit checking", 5.4 "Type checking", 3.4.4 "Segment loading instructions in IA-32e mode").

import { i64, select, type Val } from "../wasm/value.ts";
import { faultingHelper, helper } from "./helper.ts";
import type { Env } from "./semantics.ts";
import { CR0, CR0_BIT, EFER, EFER_BIT, FLAG, RFLAGS, SEG_ATTR, SEGMENTS, SREG, VECTOR } from "./state.ts";

const STRIDE = SEGMENTS[1].base.offset - SEGMENTS[0].base.offset;
SEGMENTS.forEach((segment, n) => {
  if (segment.base.offset !== SEGMENTS[0].base.offset + n * STRIDE)
    throw new Error("segment registers are not evenly spaced");
});

/** More than any access: the room in a segment of 64-bit mode, where no limit is checked. */
const NO_LIMIT = 1n << 62n;
const TYPE_WRITABLE_OR_READABLE = 2;
const TYPE_EXPAND_DOWN = 4;
const TYPE_CODE = 8;

/** 1 in 64-bit mode: EFER.LMA and CS.L. */
export function in64BitMode(x: Env): Val {
  const lma = Math.log2(EFER_BIT.LMA);
  return x.get(EFER).shrU(lma).and(x.get(SEGMENTS[SREG.CS].attr).bits(13, 1));
}

/** 1 in protected mode outside virtual-8086 mode, where segment types are checked. */
export function checksTypes(x: Env): Val {
  return x.get(CR0).and(CR0_BIT.PE).and(x.get(RFLAGS).and(FLAG.VM).eqz());
}

function segmentField(x: Env, segment: Val, field: "base" | "limit" | "attr"): Val {
  const offset = SEGMENTS[0][field].offset;
  return field === "base" ? x.cpu.ld64(segment.mul(STRIDE), offset) : x.cpu.ld32(segment.mul(STRIDE), offset);
}

/** Bytes that may be accessed from an offset on, upwards: (segment, offset, write) -> bytes, 0 where nothing may. Never raises. */
export const segmentRoom = helper("segmentRoom", ["i32", "i64", "i32"], ["i64"], (x, segment, offset, write) => {
  const { c } = x;
  c.if(in64BitMode(x), () => x.done(NO_LIMIT));
  const attr = c.let(segmentField(x, segment, "attr"));
  c.if(checksTypes(x), () => {
    const kind = c.let(attr.and(TYPE_CODE | TYPE_WRITABLE_OR_READABLE));
    const wrongType = select(write, kind.ne(TYPE_WRITABLE_OR_READABLE), kind.eq(TYPE_CODE));
    c.if(wrongType.or(attr.and(SEG_ATTR.UNUSABLE)), () => x.done(0));
  });
  const limit = c.let(segmentField(x, segment, "limit").zx());
  c.if(attr.and(TYPE_CODE | TYPE_EXPAND_DOWN).eq(TYPE_EXPAND_DOWN), () => {
    const end = c.let(select(attr.and(SEG_ATTR.DB), i64(1n << 32n), 1n << 16n));
    x.done(select(offset.leU(limit).or(offset.geU(end)), i64(0), end.sub(offset)));
  });
  x.done(select(offset.gtU(limit), i64(0), limit.add(1).sub(offset)));
});

/** The linear address of an offset that needs no check or has had it: (segment, offset) -> linear. Never raises. */
export const linearAddress = helper("linearAddress", ["i32", "i64"], ["i64"], (x, segment, offset) => {
  const { c } = x;
  const base = c.let(segmentField(x, segment, "base"));
  c.if(in64BitMode(x), () => x.done(offset.add(select(segment.geU(SREG.FS), base, 0n))));
  x.done(base.add(offset).and(0xffffffffn));
});

/** (segment, offset, bytes, write) -> linear, with #SS(0) or #GP(0) where the segment does not allow the access. The offset is already
 *  wrapped to the address size. Canonicality is left to the access itself. */
export const segmentAddress = faultingHelper(
  "segmentAddress",
  ["i32", "i64", "i32", "i32"],
  ["i64"],
  (x, segment, offset, bytes, write) => {
    const { c } = x;
    c.if(
      x.call(segmentRoom, segment, offset, write).ltU(bytes.zx()),
      () => {
        c.if(segment.eq(SREG.SS), () => x.raise(VECTOR.SS, 0));
        x.raise(VECTOR.GP, 0);
      },
      undefined,
      "unlikely",
    );
    x.done(x.call(linearAddress, segment, offset));
  },
);

/** #GP(0) where a near branch target is beyond the code segment's limit, or not canonical in 64-bit mode (SDM Vol. 2A CALL). */
export const checkTarget = faultingHelper("checkTarget", ["i64"], [], (x, rip) => {
  x.c.if(
    in64BitMode(x),
    () => x.raiseIf(notCanonical(rip), VECTOR.GP, 0),
    () => x.raiseIf(rip.gtU(x.get(SEGMENTS[SREG.CS].limit).zx()), VECTOR.GP, 0),
  );
  x.done();
});

/** 1 where bits 63 to 47 of an i64 differ. */
export function notCanonical(address: Val): Val {
  return address.shl(16).shrS(16).ne(address);
}

// Addresses of implicit operands: index registers at the address size (0 = 16, 1 = 32, 2 = 64 bits, as `Sem.addressSize`).

/** The bits of an offset that count, i64. */
export function addressMask(size: Val): Val {
  return select(size.eq(2), i64(-1), select(size.eq(1), i64(0xffffffffn), i64(0xffffn)));
}

/** An index, base or count register as i64, the bits beyond the address size cleared. */
export function indexRegister(x: Env, register: number, mask: Val): Val {
  return x.c.let(x.gpr(register, 64).and(mask));
}

/** Writes such a register: 64 bits, 32 zero-extended, or the low 16. */
export function setIndexRegister(x: Env, register: number, size: Val, value: Val): void {
  const fixed = x.c.let(value);
  x.c.switch(
    size,
    [
      [[2], () => x.setGpr(register, 64, fixed)],
      [[1], () => x.setGpr(register, 32, fixed.wrap())],
    ],
    () => x.setGpr(register, 16, fixed.wrap()),
  );
}
