// The x87 registers while a region runs: in locals, by their distance from where TOP was taken to be when the region was entered. The code
// being written knows how far TOP has moved since, so ST(i) is always a certain local; which physical register that is only matters where
// they are loaded and saved.

import type { FloatStack } from "../../isa/semantics.ts";
import { CR0, CR0_BIT, FCS, FDP, FDS, FIP, FSW, FTW, SEGMENTS, SREG, X87_BASE } from "../../isa/state.ts";
import { STATUS, TOP_SHIFT } from "../../isa/x87/state.ts";
import type { Code, Local } from "../../wasm/code.ts";
import type { Memory } from "../../wasm/memory.ts";
import { asVal, type Operand, type Val } from "../../wasm/value.ts";

const COUNT = 8;

/** What is known where code is being written. */
export interface FloatKnowledge {
  /** How far TOP is above that of `frame`, modulo 8. */
  readonly depth: number;
  /** Registers whose tags are known, one bit each. */
  readonly filled: number;
  readonly empty: number;
  /** x87 instructions may run. */
  readonly usable: boolean;
  readonly clearC1: boolean;
  /** FCS is that of this code; FDS is that of a segment register. */
  readonly codeNoted: boolean;
  readonly dataNoted: number | undefined;
}

const NOTHING = { filled: 0, empty: 0, usable: false, clearC1: false, codeNoted: false, dataNoted: undefined };

interface Locals {
  readonly sigs: readonly Local[];
  readonly exponents: readonly Local[];
  /** TOP minus its depth: the physical register of the first pair of locals. */
  readonly frame: Local;
  /** TOP, plus any multiple of 8. */
  readonly top: Local;
  /** Tags, one bit a register, in the order of the locals. */
  readonly tags: Local;
  /** Status word; TOP in it is old. */
  readonly status: Local;
  /** Not zero where x87 instructions raise an exception. */
  readonly unusable: Local;
  readonly codePointer: Local;
  readonly codeSelector: Local;
  readonly dataPointer: Local;
  readonly dataSelector: Local;
}

export class FloatRegisters {
  private readonly c: Code;
  private readonly cpu: Memory;
  private made: Locals | undefined;
  private readonly used = new Set<number>();
  private readonly written = new Set<number>();
  /** Depth at the start of blocks. */
  private readonly depths = new Map<number, number>();
  private known: FloatKnowledge = { depth: 0, ...NOTHING };

  constructor(c: Code, cpu: Memory) {
    this.c = c;
    this.cpu = cpu;
  }

  get depth(): number {
    return this.known.depth;
  }

  get knowledge(): FloatKnowledge {
    return this.known;
  }

  /** Goes back to what was known at another place. */
  forget(before: FloatKnowledge): void {
    this.known = before;
  }

  /** Starts writing a block. */
  startBlock(number: number): void {
    let depth = this.depths.get(number);
    if (depth === undefined) {
      depth = 0;
      this.depths.set(number, depth);
    }
    this.known = { depth, ...NOTHING };
  }

  /** The depth that a block starts with: what it comes to first. */
  depthOf(number: number): number {
    return this.depths.get(number) ?? 0;
  }

  /** Whether a block can be gone on in as things are. */
  meets(number: number): boolean {
    const depth = this.depths.get(number);
    if (depth === undefined) this.depths.set(number, this.known.depth);
    return depth === undefined || depth === this.known.depth;
  }

  private get locals(): Locals {
    if (this.made === undefined) {
      const { c } = this;
      const many = (type: "i32" | "i64"): Local[] => Array.from({ length: COUNT }, () => c.variable(type));
      this.made = {
        sigs: many("i64"),
        exponents: many("i32"),
        frame: c.variable("i32"),
        top: c.variable("i32"),
        tags: c.variable("i32"),
        status: c.variable("i32"),
        unusable: c.variable("i32"),
        codePointer: c.variable("i64"),
        codeSelector: c.variable("i32"),
        dataPointer: c.variable("i64"),
        dataSelector: c.variable("i32"),
      };
    }
    return this.made;
  }

  /** Offset of a register from X87_BASE. */
  private place(register: number): Val {
    return this.locals.frame.add(register).and(7).shl(4);
  }

  /** Takes the registers over from memory, where any are used. `depth` may be computed. */
  load(depth: Operand): void {
    if (this.made === undefined) return;
    const { c, cpu } = this;
    const {
      sigs,
      exponents,
      frame,
      top,
      tags,
      status,
      unusable,
      codePointer,
      codeSelector,
      dataPointer,
      dataSelector,
    } = this.made;
    c.set(status, cpu.ld32(0, FSW.offset));
    c.set(top, status.bits(TOP_SHIFT, 3));
    c.set(frame, top.sub(depth).and(7));
    // Both halves of a doubled tag word: a shift rotates.
    const word = cpu.ld32(0, FTW.offset);
    c.set(tags, word.or(word.shl(COUNT)).shrU(frame).and(0xff));
    const disabled = cpu.ld32(0, CR0.offset).and(CR0_BIT.EM | CR0_BIT.TS);
    c.set(unusable, disabled.or(status.and(STATUS.ES)));
    c.set(codePointer, cpu.ld64(0, FIP.offset));
    c.set(codeSelector, cpu.ld32(0, FCS.offset));
    c.set(dataPointer, cpu.ld64(0, FDP.offset));
    c.set(dataSelector, cpu.ld32(0, FDS.offset));
    for (const register of this.used) {
      c.set(sigs[register], cpu.ld64(this.place(register), X87_BASE));
      c.set(exponents[register], cpu.ld32(this.place(register), X87_BASE + 8));
    }
  }

  /** Puts them back. */
  save(): void {
    if (this.made === undefined) return;
    const { c, cpu } = this;
    const { sigs, exponents, frame, top, tags, status, codePointer, codeSelector, dataPointer, dataSelector } =
      this.made;
    c.st32(cpu, 0, status.and(~STATUS.TOP).or(top.and(7).shl(TOP_SHIFT)), FSW.offset);
    const doubled = tags.or(tags.shl(COUNT)).shl(frame).shrU(COUNT);
    c.st32(cpu, 0, doubled.and(0xff), FTW.offset);
    c.st64(cpu, 0, codePointer, FIP.offset);
    c.st32(cpu, 0, codeSelector, FCS.offset);
    c.st64(cpu, 0, dataPointer, FDP.offset);
    c.st32(cpu, 0, dataSelector, FDS.offset);
    for (const register of this.written) {
      c.st64(cpu, this.place(register), sigs[register], X87_BASE);
      c.st64(cpu, this.place(register), exponents[register].zx(), X87_BASE + 8);
    }
  }

  /** The registers may have become anything. */
  reloaded(): void {
    this.known = { depth: this.known.depth, ...NOTHING };
  }

  /** The stack for one instruction; `leave` is its other course. */
  stack(leave: () => void, rip: () => Val, segment: number): FloatStack {
    const { c, cpu, locals } = this;
    const registers = this;
    const unless = (condition: Val): void => c.if(condition, leave, undefined, "unlikely");
    const number = (index: Operand): number => {
      const constant = asVal(index, "i32").constant;
      if (constant === undefined) throw new Error("a register of the x87 stack whose number is not known");
      return (this.known.depth + Number(constant)) & 7;
    };
    const learn = (what: Partial<FloatKnowledge>): void => {
      this.known = { ...this.known, ...what };
    };
    const isTagged = (register: number): Val => locals.tags.and(1 << register);
    const tag = (register: number, full: boolean): void => {
      const bit = 1 << register;
      const { filled, empty } = this.known;
      if (full && (filled & bit) === 0) c.set(locals.tags, locals.tags.or(bit));
      if (!full && (empty & bit) === 0) c.set(locals.tags, locals.tags.and(~bit));
      learn(full ? { filled: filled | bit, empty: empty & ~bit } : { filled: filled & ~bit, empty: empty | bit });
    };
    const moveTop = (by: number): void => {
      learn({ depth: (this.known.depth + by) & 7 });
      c.set(locals.top, locals.frame.add(this.known.depth));
    };
    if (!this.known.usable) unless(locals.unusable);
    learn({ usable: true });
    return {
      unless,
      read(index) {
        const register = number(index);
        const bit = 1 << register;
        registers.used.add(register);
        if ((registers.known.filled & bit) === 0) {
          unless(isTagged(register).eqz());
          learn({ filled: registers.known.filled | bit });
        }
        return { sig: c.let(locals.sigs[register]), se: c.let(locals.exponents[register]) };
      },
      room() {
        const register = number(7);
        const bit = 1 << register;
        if ((registers.known.empty & bit) !== 0) return;
        unless(isTagged(register));
        learn({ empty: registers.known.empty | bit });
      },
      status: () => locals.status.and(~STATUS.TOP).or(locals.top.and(7).shl(TOP_SHIFT)),
      note(linear) {
        c.set(locals.codePointer, rip());
        if (!registers.known.codeNoted) c.set(locals.codeSelector, cpu.ld32(0, SEGMENTS[SREG.CS].selector.offset));
        learn({ codeNoted: true });
        if (linear === undefined) return;
        // As an offset, so without the segment's base, which is 0 for others in 64-bit mode.
        const { base, selector } = SEGMENTS[segment];
        c.set(locals.dataPointer, segment >= SREG.FS ? linear.sub(cpu.ld64(0, base.offset)) : linear);
        if (registers.known.dataNoted !== segment) c.set(locals.dataSelector, cpu.ld32(0, selector.offset));
        learn({ dataNoted: segment });
      },
      write(index, sig, se) {
        const register = number(index);
        registers.used.add(register);
        registers.written.add(register);
        c.set(locals.sigs[register], sig);
        c.set(locals.exponents[register], se);
        tag(register, true);
      },
      push(sig, se) {
        moveTop(7);
        this.write(0, sig, se);
      },
      pop() {
        tag(registers.known.depth, false);
        moveTop(1);
      },
      report(flags, cleared = 0) {
        const mask = STATUS.C1 | cleared;
        const none = asVal(flags, "i32").constant === 0;
        const isClear = registers.known.clearC1 && cleared === 0;
        const kept = isClear ? locals.status : locals.status.and(~mask);
        if (!none || !isClear) c.set(locals.status, none ? kept : kept.or(asVal(flags, "i32")));
        learn({ clearC1: none });
      },
    };
  }

  /** Whether the region has used any. */
  get any(): boolean {
    return this.made !== undefined;
  }
}
