// The x87 stack of the semantics interface in the vCPU's memory, as the interpreter's handlers use it. TOP and tags are read once, and written
// once at the end.

import type { FloatStack, Sem } from "../isa/semantics.ts";
import { FSW, FTW, X87_BASE } from "../isa/state.ts";
import { note, STATUS, TOP_SHIFT, useX87, useX87WithoutWait } from "../isa/x87/state.ts";
import type { Label, Local } from "../wasm/code.ts";
import { asVal, i32, type Operand, type Val } from "../wasm/value.ts";

class MemoryFloatStack implements FloatStack {
  private readonly x: Sem;
  private readonly other: Label;
  private readonly statusWord: Local;
  private readonly tags: Local;

  constructor(x: Sem, other: Label) {
    this.x = x;
    this.other = other;
    this.statusWord = x.c.local("i32", x.get(FSW));
    this.tags = x.c.local("i32", x.get(FTW));
  }

  private physical(index: Operand): Local | Val {
    return this.x.c.let(this.statusWord.bits(TOP_SHIFT, 3).add(index).and(7));
  }

  private isFilled(number: Val): Val {
    return this.tags.shrU(number).and(1);
  }

  private moveTop(by: number): void {
    const moved = this.statusWord.add(by << TOP_SHIFT).and(STATUS.TOP);
    this.x.c.set(this.statusWord, this.statusWord.and(~STATUS.TOP).or(moved));
  }

  unless(condition: Val): void {
    this.x.c.brIf(this.other, condition, "unlikely");
  }

  read(index: Operand): { sig: Val; se: Val } {
    const { c, cpu } = this.x;
    const number = this.physical(index);
    this.unless(this.isFilled(number).eqz());
    const at = c.let(number.shl(4));
    return { sig: c.let(cpu.ld64(at, X87_BASE)), se: c.let(cpu.ld32(at, X87_BASE + 8)) };
  }

  room(): void {
    this.unless(this.isFilled(this.physical(7)));
  }

  status(): Val {
    return this.statusWord;
  }

  note(linear?: Val): void {
    note(this.x, linear);
  }

  write(index: Operand, sig: Operand, se: Operand): void {
    const { c, cpu } = this.x;
    const number = this.physical(index);
    const at = c.let(number.shl(4));
    c.st64(cpu, at, sig, X87_BASE);
    c.st64(cpu, at, asVal(se, "i32").zx(), X87_BASE + 8);
    c.set(this.tags, this.tags.or(i32(1).shl(number)));
  }

  push(sig: Operand, se: Operand): void {
    this.moveTop(7);
    this.write(0, sig, se);
  }

  pop(): void {
    this.x.c.set(this.tags, this.tags.and(i32(1).shl(this.physical(0)).not()));
    this.moveTop(1);
  }

  report(flags: Operand, cleared = 0): void {
    this.x.c.set(this.statusWord, this.statusWord.and(~(cleared | STATUS.C1)).or(flags));
  }

  finish(): void {
    this.x.put(FSW, this.statusWord);
    this.x.put(FTW, this.tags);
  }
}

/** `Sem.usually` for semantics whose x87 registers are in memory. */
export function usuallyInMemory<T>(
  x: Sem,
  operand: () => T,
  body: (stack: FloatStack, operand: T) => void,
  otherwise: (operand: T) => void,
  waits: boolean,
): void {
  const { c } = x;
  if (waits) useX87(x);
  else useX87WithoutWait(x);
  const fetched = operand();
  c.block((done) => {
    c.block((other) => {
      const stack = new MemoryFloatStack(x, other);
      body(stack, fetched);
      stack.finish();
      c.br(done);
    });
    otherwise(fetched);
  });
}
