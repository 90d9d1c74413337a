// Segment descriptors and the hidden parts of segment registers (SDM Vol. 3A 3.4.3 to 3.5.2).

import type { Local } from "../../wasm/code.ts";
import { i32, i64, type Operand, select, type Val } from "../../wasm/value.ts";
import { helper } from "../helper.ts";
import type { Env } from "../semantics.ts";
import { type Field, GDTR_BASE, GDTR_LIMIT, LDTR, SEG_ATTR, SEGMENTS, TR } from "../state.ts";
import { isLongMode, isVirtual8086, wrapLinear } from "./modes.ts";

// The six segment registers, LDTR and TR lie one after the other in the vCPU's memory, so that a number in a register addresses them.
const FIRST = SEGMENTS[0];
const STRIDE = SEGMENTS[1].base.offset - FIRST.base.offset;
export const LDTR_NUMBER = 6;
export const TR_NUMBER = 7;
for (const [number, segment] of [...SEGMENTS, LDTR, TR].entries()) {
  if (segment.base.offset !== FIRST.base.offset + number * STRIDE)
    throw new Error("the segment registers do not lie at equal distances");
}

type Part = "selector" | "attr" | "limit" | "base";

/** A part of a segment register whose number is only known at run time. */
export function segmentPart(x: Env, number: Val, part: Part): Val {
  const field: Field = FIRST[part];
  const address = number.mul(STRIDE);
  return field.type === "i64" ? x.cpu.ld64(address, field.offset) : x.cpu.ld32(address, field.offset);
}

export function setSegmentPart(x: Env, number: Val, part: Part, value: Operand): void {
  const field: Field = FIRST[part];
  const address = number.mul(STRIDE);
  if (field.type === "i64") x.c.st64(x.cpu, address, value, field.offset);
  else x.c.st32(x.cpu, address, value, field.offset);
}

/** Access rights in the places of `SEG_ATTR`. */
export function attrOf(descriptor: Val): Val {
  return descriptor.shrU(40).wrap().and(0xf0ff);
}

export function baseOf(descriptor: Val): Val {
  return descriptor.bits(16, 24).or(descriptor.shrU(56).shl(24));
}

/** The limit in bytes. */
export function limitOf(descriptor: Val): Val {
  const raw = descriptor.wrap().and(0xffff).or(descriptor.shrU(32).wrap().and(0xf0000));
  return select(descriptor.bits(55, 1).wrap(), raw.shl(12).or(0xfff), raw);
}

/** The selector as it stands in an error code: without RPL (SDM Vol. 3A 6.13). */
export function errorOf(selector: Val): Val {
  return selector.and(0xfffc);
}

export function dplOf(attr: Val): Val {
  return attr.bits(SEG_ATTR.DPL_SHIFT, 2);
}

/** Linear address of the descriptor that a selector names, or -1 where its table does not reach `bytes` bytes there. */
export const descriptorAddress = helper("descriptorAddress", ["i32", "i32"], ["i64"], (x, selector, bytes) => {
  const { c } = x;
  const limit = c.local("i32", x.get(GDTR_LIMIT));
  const base = c.local("i64", x.get(GDTR_BASE));
  const index = c.let(selector.and(0xfff8));
  c.if(selector.and(4), () => {
    c.if(x.get(LDTR.attr).and(SEG_ATTR.UNUSABLE), () => x.done(-1n));
    c.set(limit, x.get(LDTR.limit));
    c.set(base, x.get(LDTR.base));
  });
  c.if(index.add(bytes).sub(1).gtU(limit), () => x.done(-1n));
  x.done(wrapLinear(x, base.add(index.zx())));
});

export interface Fetched {
  readonly at: Val;
  /** The eight bytes of the descriptor. */
  readonly low: Val;
  readonly attr: Val;
}

/** Reads the descriptor of a selector; beyond its table raises `vector` with `error`. */
export function fetchDescriptor(x: Env, selector: Val, vector: number, error: Operand): Fetched {
  const at = x.call(descriptorAddress, selector, 8);
  x.raiseIf(at.eq(-1n), vector, error);
  const low = x.load(64, at, "system");
  return { at, low, attr: x.c.let(attrOf(low)) };
}

/** The busy bit of a TSS descriptor, in its type. */
export const TSS_BUSY = 2;

/** Sets the accessed bit of a code or data segment in its table, if it is clear. */
export function markAccessed(x: Env, at: Val, attr: Val): void {
  x.c.if(attr.and(1).eqz(), () => x.updateByte(x.c.let(at.add(5)), "or", 1), undefined, "unlikely");
}

/** Loads a code or data segment register from a descriptor that has passed its checks. */
export const setSegment = helper("setSegment", ["i32", "i32", "i64"], [], (x, number, selector, descriptor) => {
  setSegmentPart(x, number, "selector", selector);
  setSegmentPart(x, number, "base", baseOf(descriptor));
  setSegmentPart(x, number, "limit", limitOf(descriptor));
  setSegmentPart(x, number, "attr", attrOf(descriptor).or(1));
  x.done();
});

/** Loads a null selector: nothing can be reached through the register (in legacy code). */
export function setNullSegment(x: Env, number: Val, selector: Operand, dpl?: Val): void {
  setSegmentPart(x, number, "selector", selector);
  setSegmentPart(x, number, "base", 0n);
  setSegmentPart(x, number, "limit", 0);
  setSegmentPart(x, number, "attr", (dpl ?? i32(0)).shl(SEG_ATTR.DPL_SHIFT).or(SEG_ATTR.UNUSABLE));
}

/** Loads a segment register as virtual-8086 mode does (SDM Vol. 3B 20.1.1). */
export function setVirtualSegment(x: Env, number: Val, selector: Val): void {
  setSegmentPart(x, number, "selector", selector);
  setSegmentPart(x, number, "base", selector.zx().shl(4));
  setSegmentPart(x, number, "limit", 0xffff);
  setSegmentPart(x, number, "attr", 0xf3);
}

/** Loads a segment register as real-address mode does: limit and access rights stay as they are (SDM Vol. 3A 9.9.2, 20.1.1). */
export function setRealSegment(x: Env, number: Val, selector: Val): void {
  setSegmentPart(x, number, "selector", selector);
  setSegmentPart(x, number, "base", selector.zx().shl(4));
  x.c.if(segmentPart(x, number, "attr").and(SEG_ATTR.UNUSABLE), () => {
    setSegmentPart(x, number, "attr", 0x93);
    setSegmentPart(x, number, "limit", 0xffff);
  });
}

/** Loads a segment register in real-address or virtual-8086 mode, whichever it is: from the selector alone. */
export function setPlainSegment(x: Env, number: Val, selector: Val): void {
  x.c.if(
    isVirtual8086(x),
    () => setVirtualSegment(x, number, selector),
    () => setRealSegment(x, number, selector),
  );
}

/** Code segment: S set, type bit 3. */
export function isCode(attr: Val): Val {
  return attr.and(0x18).eq(0x18);
}

export function isConforming(attr: Val): Val {
  return attr.and(0x1c).eq(0x1c);
}

export function isWritableData(attr: Val): Val {
  return attr.and(0x1a).eq(0x12);
}

/** Both L and D set in a code segment, which IA-32e mode refuses; 1 or 0. */
export function hasBothLAndD(x: Env, attr: Val): Val {
  return isLongMode(x)
    .ne(0)
    .and(attr.and(SEG_ATTR.L | SEG_ATTR.DB).eq(SEG_ATTR.L | SEG_ATTR.DB));
}

/** 1 where `bytes` bytes at `offset` do not lie within a segment, expand-down ones considered (SDM Vol. 3A 5.3). */
export const beyondLimit = helper("beyondLimit", ["i32", "i32", "i32", "i32"], ["i32"], beyondLimitBody);

function beyondLimitBody(x: Env, offset: Local, bytes: Local, limit: Local, attr: Local): void {
  const last = x.c.let(offset.zx().add(bytes.zx()).sub(1n));
  x.c.if(attr.and(0x1c).eq(0x14), () => {
    const top = select(attr.and(SEG_ATTR.DB), i64(0xffffffffn), i64(0xffffn));
    x.done(offset.leU(limit).or(last.gtU(top)));
  });
  x.done(last.gtU(limit.zx()));
}
