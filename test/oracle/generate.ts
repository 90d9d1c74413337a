// Makes cases: instruction bytes by a plan's row, and registers, flags and memory that put edge values under the operands, memory
// operands at page ends and beyond them, and branches at places that may and may not be executed.

import { FLAG, GPR } from "../../src/isa/state.ts";
import { operandContent, randomFx } from "./contents.ts";
import { Encoding } from "./encoding.ts";
import type { Plan } from "./plan.ts";
import { integer64, type Random } from "./random.ts";
import { AREA_BYTES, CODE_BASE, DATA_16_OFFSET, DATA_BASE, FX, PAGE, PATCH_ROOM, REQUEST } from "./record.ts";
import { prepare } from "./special.ts";

const MASK_64 = (1n << 64n) - 1n;

/** A case in the making; views into its request record. */
export class Case {
  readonly r: Random;
  readonly plan: Plan;
  readonly long: boolean;
  readonly view: DataView;
  readonly bytes: Uint8Array;
  /** Registers whose value must stay: they form an address or count rounds. */
  readonly pinned = new Set<number>();
  /** Address (offset in its segment) of the memory operand, and its width in bytes; -1 where there is none. */
  target = -1;
  width = 0;
  /** Bits of RFLAGS to start with, besides the fixed ones. */
  flags = 0;
  /** Instruction pointer. */
  rip = 0;
  readonly encoding: Encoding;

  constructor(r: Random, plan: Plan, record: Uint8Array) {
    this.r = r;
    this.plan = plan;
    this.long = plan.mode === 64;
    this.bytes = record;
    this.view = new DataView(record.buffer, record.byteOffset, record.byteLength);
    this.encoding = new Encoding(this);
  }

  gpr(n: number): bigint {
    return this.view.getBigUint64(REQUEST.GPR + n * 8, true);
  }

  /** Sets a register, in 32-bit code its low half. */
  setGpr(n: number, value: bigint): void {
    this.view.setBigUint64(REQUEST.GPR + n * 8, BigInt.asUintN(this.long ? 64 : 32, value), true);
  }

  pin(n: number, value: bigint): void {
    this.setGpr(n, value);
    this.pinned.add(n);
  }

  /** Puts bytes under an address of the data before the case runs, as far as they lie in the data pages. Slot 0 or 1. */
  patch(slot: 0 | 1, address: number, content: Uint8Array): void {
    const start = this.dataStart;
    const from = Math.max(address, start);
    const to = Math.min(address + content.length, start + AREA_BYTES, from + PATCH_ROOM[slot]);
    const length = Math.max(0, to - from);
    const at = REQUEST.PATCHES + slot * 8;
    this.view.setUint32(at, from - start + DATA_BASE, true);
    this.view.setUint32(at + 4, length, true);
    if (length > 0)
      this.bytes.set(content.subarray(from - address, to - address), slot === 0 ? REQUEST.PATCH_0 : REQUEST.PATCH_1);
  }

  patchInteger(slot: 0 | 1, address: number, value: bigint, bytes: number): void {
    const content = new Uint8Array(8);
    new DataView(content.buffer).setBigUint64(0, value & MASK_64, true);
    this.patch(slot, address, content.subarray(0, bytes));
  }

  /** Where data begin, as the case's code addresses them; likewise code. */
  get dataStart(): number {
    return this.plan.mode === 16 ? DATA_16_OFFSET : DATA_BASE;
  }

  get codeStart(): number {
    return this.plan.mode === 16 ? 0 : CODE_BASE;
  }

  /** A data address for an access of that many bytes: mostly inside the pages, often at their ends, sometimes where it faults. */
  place(bytes: number): bigint {
    const { r } = this;
    const start = this.dataStart;
    const end = start + AREA_BYTES;
    const room = Math.max(1, AREA_BYTES - bytes);
    const kind = r.below(100);
    if (kind < 35) return BigInt(start + Math.floor(r.below(room) / bytes) * bytes);
    if (kind < 50) return BigInt(start + (r.below(room) & ~15));
    if (kind < 66) return BigInt(start + r.below(room));
    if (kind < 76) return BigInt(start + PAGE - r.below(Math.max(1, bytes)));
    if (kind < 86) return BigInt(end - bytes);
    if (kind < 92) return BigInt(end - r.below(Math.max(1, bytes)));
    if (kind < 94) return BigInt(end + r.below(64));
    if (kind < 96) return BigInt(start - 1 - r.below(Math.max(1, bytes)));
    if (kind < 98 && this.long) return (BigInt(0x1000 + r.below(0xe000)) << 48n) | BigInt(start + r.below(AREA_BYTES));
    // In 16-bit code beyond the segment's limit, as often as not.
    return BigInt(r.below(0xf000));
  }

  /** An address for a branch: on the code pages beside this instruction, where nothing is mapped, or not canonical. */
  branchTarget(): bigint {
    const { r } = this;
    const kind = r.below(100);
    if (kind < 80) return BigInt(this.codePlace());
    if (kind < 88) return BigInt(this.codeStart + AREA_BYTES + r.below(0x10000));
    if (kind < 92) return BigInt(this.dataStart + AREA_BYTES + r.below(0x10000));
    if (kind < 96 && this.long) return (BigInt(0x1000 + r.below(0xe000)) << 48n) | (r.bits64() & 0xffff_ffff_ffffn);
    return BigInt(r.below(0xf000));
  }

  /** A byte of the code pages that the instruction does not occupy. */
  codePlace(): number {
    for (;;) {
      const at = this.codeStart + this.r.below(AREA_BYTES - 1);
      if (at < this.rip - 16 || at >= this.rip + 32) return at;
    }
  }
}

function randomFlags(r: Random): number {
  let flags = r.next() & (FLAG.CF | FLAG.PF | FLAG.AF | FLAG.ZF | FLAG.SF | FLAG.OF);
  if (r.chance(30)) flags |= FLAG.DF;
  if (r.chance(4)) flags |= FLAG.AC;
  return flags;
}

/** Where the instruction stands: mostly in the midst of a page, sometimes at a page's end or across it. */
function instructionPlace(r: Random): number {
  const kind = r.below(100);
  if (kind < 88) return 0x200 + r.below(PAGE - 0x400) + (r.chance(30) ? PAGE : 0);
  if (kind < 94) return PAGE - r.below(16);
  return AREA_BYTES - 1 - r.below(15);
}

/** Writes the request of a new case into `record` (REQUEST.BYTES long). */
export function generate(r: Random, plan: Plan, record: Uint8Array): void {
  const k = new Case(r, plan, record);
  const { view } = k;
  view.setUint32(REQUEST.MODE, plan.mode === 64 ? 0 : plan.mode === 32 ? 1 : 2, true);
  view.setBigUint64(REQUEST.PATCHES, 0n, true);
  view.setBigUint64(REQUEST.PATCHES + 8, 0n, true);
  k.rip = k.codeStart + instructionPlace(r);
  k.flags = randomFlags(r);
  for (let n = 0; n < 16; n++)
    view.setBigUint64(REQUEST.GPR + n * 8, k.long ? integer64(r) : n < 8 ? integer64(r) & 0xffffffffn : 0n, true);
  // A stack pointer that is none is rare in programs; keep it on the data pages.
  k.setGpr(GPR.RSP, BigInt(k.dataStart + 0x800 + (r.below(0x1000) & ~7)));
  randomFx(k, record.subarray(REQUEST.FX, REQUEST.FX + FX.BYTES));
  const adjust = prepare(k);
  k.encoding.addressing();
  if (k.target >= 0) k.patch(0, k.target, operandContent(k, Math.min(k.width, PATCH_ROOM[0])));
  adjust?.();
  const code = k.encoding.assemble();
  view.setUint32(REQUEST.LENGTH, code.length, true);
  record.set(code, REQUEST.CODE);
  view.setBigUint64(REQUEST.RIP, BigInt(k.rip - k.codeStart + CODE_BASE), true);
  view.setBigUint64(REQUEST.RFLAGS, BigInt(k.flags | 0x202), true);
}
