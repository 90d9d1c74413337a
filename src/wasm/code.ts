// The body of one function: statements are written out as they are stated, with labels for structured control flow and branch hints
// (metadata.code.branch_hint). Calls happen where they are stated; their results are locals.

import { ATOMIC_LOAD, ATOMIC_RMW, ATOMIC_STORE, ATOMIC_WIDTH, emitFence, type Memory, storeKind } from "./memory.ts";
import type { FuncRef, FuncType, GlobalRef, ModuleBuilder, TableRef, TagRef } from "./module.ts";
import { VAL_TYPE_CODE, type ValType } from "./ops.ts";
import { asVal, Const, type Operand, Val } from "./value.ts";
import { ByteWriter } from "./writer.ts";

/** A local variable. Reading it is using it as a value. */
export class Local extends Val {
  readonly index: number;
  /** True where the local is written once, so that its value may be used anywhere after. */
  readonly fixed: boolean;

  constructor(type: ValType, index: number, fixed: boolean) {
    super(type);
    this.index = index;
    this.fixed = fixed;
  }

  emit(out: ByteWriter): void {
    out.u8(0x20);
    out.u32(this.index);
  }
}

class GlobalGet extends Val {
  private readonly global: GlobalRef;
  constructor(global: GlobalRef) {
    super(global.type);
    this.global = global;
  }
  emit(out: ByteWriter): void {
    out.u8(0x23);
    out.u32(this.global.index);
  }
}

/** A branch target: the end of a block, the head of a loop, or the end of an `if`. */
export interface Label {
  readonly depth: number;
}

/** Which way a condition usually goes. */
export type Hint = "likely" | "unlikely";

/** A place in the code of a function. */
export interface Mark {
  readonly length: number;
  readonly hints: number;
  readonly depth: number;
  readonly scopes: number;
}

const EMPTY_BLOCK = 0x40;

export class Code {
  readonly module: ModuleBuilder;
  readonly type: FuncType;
  readonly params: readonly Local[];
  private readonly out = new ByteWriter(4096);
  private readonly localTypes: ValType[] = [];
  private readonly free = new Map<ValType, number[]>();
  private readonly scopes: Local[][] = [];
  private readonly hints: { at: number; likely: boolean }[] = [];
  private readonly notes: { at: number; text: string }[] = [];
  private depth = 0;
  /** Hears of each value that is fixed in a local. */
  onFixed: ((value: Val, local: Local) => void) | undefined;

  constructor(module: ModuleBuilder, type: FuncType) {
    this.module = module;
    this.type = type;
    this.params = type.params.map((paramType, i) => new Local(paramType, i, false));
  }

  private newLocal(type: ValType, fixed: boolean): Local {
    const reused = this.free.get(type)?.pop();
    const local = new Local(type, reused ?? this.type.params.length + this.localTypes.length, fixed);
    if (reused === undefined) this.localTypes.push(type);
    this.scopes.at(-1)?.push(local);
    return local;
  }

  /** A new variable. It starts as zero only when it is not reused from a closed scope: set it before use. */
  local(type: ValType, initial?: Operand): Local {
    const local = this.newLocal(type, false);
    if (initial !== undefined) this.set(local, initial);
    return local;
  }

  /** A new variable that belongs to no scope and is never reused. It starts as zero. */
  variable(type: ValType): Local {
    this.localTypes.push(type);
    return new Local(type, this.type.params.length + this.localTypes.length - 1, false);
  }

  /** Fixes the present value of an expression; constants and fixed locals stay as they are. */
  let(value: Val): Val {
    if (value instanceof Const || (value instanceof Local && value.fixed)) return value;
    const local = this.newLocal(value.type, true);
    value.emit(this.out);
    this.out.u8(0x21);
    this.out.u32(local.index);
    this.onFixed?.(value, local);
    return local;
  }

  /** Locals made inside `body` are free for reuse after it. */
  scope(body: () => void): void {
    this.scopes.push([]);
    body();
    for (const local of this.scopes.pop() as Local[]) this.release(local);
  }

  /** Keeps a local made in the innermost open scope beyond it, until `release`. Gives whether it was there. */
  hold(value: Val): boolean {
    const scope = this.scopes.at(-1);
    const at =
      scope === undefined || !(value instanceof Local) ? -1 : scope.findIndex(({ index }) => index === value.index);
    if (at >= 0) scope?.splice(at, 1);
    return at >= 0;
  }

  /** Frees a held local for reuse. */
  release(local: Local): void {
    const list = this.free.get(local.type);
    if (list === undefined) this.free.set(local.type, [local.index]);
    else list.push(local.index);
  }

  /** The present place, to return to with `rewind`. */
  mark(): Mark {
    return { length: this.out.length, hints: this.hints.length, depth: this.depth, scopes: this.scopes.length };
  }

  /** Forgets the code written since `mark`. The locals made since then stay. */
  rewind(mark: Mark): void {
    this.out.length = mark.length;
    this.hints.length = mark.hints;
    while ((this.notes.at(-1)?.at ?? 0) > mark.length) this.notes.pop();
    this.depth = mark.depth;
    this.scopes.length = mark.scopes;
  }

  /** Writes code at an earlier place, in front of what has been written since. Branches do not count: `write` opens and closes its own blocks. */
  insert(mark: Mark, write: () => void): void {
    if (mark.length === this.out.length) {
      write();
      return;
    }
    const behind = this.out.view().slice(mark.length);
    const hints = this.hints.splice(mark.hints);
    const { depth } = this;
    this.out.length = mark.length;
    this.depth = mark.depth;
    write();
    const moved = this.out.length - mark.length;
    this.out.raw(behind);
    this.depth = depth;
    for (const { at, likely } of hints) this.hints.push({ at: at + moved, likely });
    for (const note of this.notes) if (note.at > mark.length) note.at += moved;
  }

  /** A line for readers of the text, in front of what follows. */
  note(text: string): void {
    this.notes.push({ at: this.out.length, text });
  }

  /** The code so far, and its notes, for src/wasm/text.ts. */
  get noted(): {
    readonly code: Uint8Array;
    readonly notes: readonly { readonly at: number; readonly text: string }[];
  } {
    return { code: this.out.view().slice(), notes: this.notes };
  }

  /** Bytes of code so far. */
  get length(): number {
    return this.out.length;
  }

  set(local: Local, value: Operand): void {
    this.typed(value, local.type, "a local").emit(this.out);
    this.out.u8(0x21);
    this.out.u32(local.index);
  }

  private typed(value: Operand, type: ValType, what: string): Val {
    const val = asVal(value, type);
    if (val.type !== type) throw new TypeError(`${what} of type ${type} cannot take a ${val.type}`);
    return val;
  }

  getGlobal(global: GlobalRef): Val {
    return new GlobalGet(global);
  }

  setGlobal(global: GlobalRef, value: Operand): void {
    this.typed(value, global.type, "a global").emit(this.out);
    this.out.u8(0x24);
    this.out.u32(global.index);
  }

  /** Computes a value for its effects (a trap, an access) and forgets it. */
  drop(value: Val): void {
    value.emit(this.out);
    this.out.u8(0x1a);
  }

  // Memory

  private watched(memory: Memory, address: Operand, bytes: Operand, offset = 0): void {
    if (memory.watch === undefined) return;
    const start = memory.address(address);
    memory.watch(this, offset === 0 ? start : start.add(offset), bytes);
  }

  /** Stores the low `bytes` bytes of a value. */
  store(memory: Memory, bytes: number, address: Operand, value: Val, offset = 0): void {
    const kind = storeKind(value.type, bytes);
    this.watched(memory, address, bytes, offset);
    memory.address(address).emit(this.out);
    value.emit(this.out);
    if (memory.ordered) this.atomicFence();
    if (kind.prefix !== undefined) this.out.u8(kind.prefix);
    this.out.u8(kind.code);
    memory.emitArg(this.out, 0, offset);
  }

  st8(memory: Memory, address: Operand, value: Operand, offset = 0): void {
    this.store(memory, 1, address, asVal(value, "i32"), offset);
  }
  st16(memory: Memory, address: Operand, value: Operand, offset = 0): void {
    this.store(memory, 2, address, asVal(value, "i32"), offset);
  }
  st32(memory: Memory, address: Operand, value: Operand, offset = 0): void {
    this.store(memory, 4, address, asVal(value, "i32"), offset);
  }
  st64(memory: Memory, address: Operand, value: Operand, offset = 0): void {
    this.store(memory, 8, address, asVal(value, "i64"), offset);
  }
  stv128(memory: Memory, address: Operand, value: Val, offset = 0): void {
    this.store(memory, 16, address, value, offset);
  }

  private atomic(code: number, memory: Memory, bytes: number, offset: number): void {
    this.out.u8(0xfe);
    this.out.u32(code);
    memory.emitArg(this.out, Math.log2(bytes), offset);
  }

  private static atomicKey(type: ValType, bytes: number): string {
    const key = `${type}x${bytes}`;
    if (!(key in ATOMIC_WIDTH)) throw new TypeError(`there is no atomic access of ${bytes} bytes as ${type}`);
    return key;
  }

  atomicLoad(type: ValType, memory: Memory, bytes: number, address: Operand, offset = 0): Local {
    memory.address(address).emit(this.out);
    this.atomic(ATOMIC_LOAD[Code.atomicKey(type, bytes)], memory, bytes, offset);
    return this.takeResult(type);
  }

  atomicStore(memory: Memory, bytes: number, address: Operand, value: Val, offset = 0): void {
    this.watched(memory, address, bytes, offset);
    memory.address(address).emit(this.out);
    value.emit(this.out);
    this.atomic(ATOMIC_STORE[Code.atomicKey(value.type, bytes)], memory, bytes, offset);
  }

  /** Atomic read-modify-write; gives the old value. */
  atomicRmw(name: string, memory: Memory, bytes: number, address: Operand, value: Val, offset = 0): Local {
    this.watched(memory, address, bytes, offset);
    memory.address(address).emit(this.out);
    value.emit(this.out);
    this.atomic(ATOMIC_RMW[name] + ATOMIC_WIDTH[Code.atomicKey(value.type, bytes)], memory, bytes, offset);
    return this.takeResult(value.type);
  }

  atomicCompareExchange(
    memory: Memory,
    bytes: number,
    address: Operand,
    expected: Val,
    replacement: Val,
    offset = 0,
  ): Local {
    this.watched(memory, address, bytes, offset);
    memory.address(address).emit(this.out);
    expected.emit(this.out);
    replacement.emit(this.out);
    this.atomic(ATOMIC_RMW.cmpxchg + ATOMIC_WIDTH[Code.atomicKey(expected.type, bytes)], memory, bytes, offset);
    return this.takeResult(expected.type);
  }

  /** memory.atomic.wait32: sleeps while the word is as expected, at most so many nanoseconds. */
  atomicWait32(memory: Memory, address: Operand, expected: Operand, timeout: bigint, offset = 0): void {
    memory.address(address).emit(this.out);
    asVal(expected, "i32").emit(this.out);
    asVal(timeout, "i64").emit(this.out);
    this.atomic(0x01, memory, 4, offset);
    this.out.u8(0x1a);
  }

  atomicNotify(memory: Memory, address: Operand, count: Operand, offset = 0): void {
    memory.address(address).emit(this.out);
    asVal(count, "i32").emit(this.out);
    this.atomic(0x00, memory, 4, offset);
    this.out.u8(0x1a);
  }

  atomicFence(): void {
    emitFence(this.out);
  }

  memoryFill(memory: Memory, address: Operand, byte: Operand, count: Operand): void {
    this.watched(memory, address, count);
    if (memory.ordered) this.atomicFence();
    memory.address(address).emit(this.out);
    asVal(byte, "i32").emit(this.out);
    asVal(count, memory.addressType).emit(this.out);
    this.out.u8(0xfc);
    this.out.u32(11);
    this.out.u32(memory.index);
  }

  memoryCopy(to: Memory, toAddress: Operand, from: Memory, fromAddress: Operand, count: Operand): void {
    this.watched(to, toAddress, count);
    if (to.ordered) this.atomicFence();
    to.address(toAddress).emit(this.out);
    from.address(fromAddress).emit(this.out);
    asVal(count, to.addressType).emit(this.out);
    this.out.u8(0xfc);
    this.out.u32(10);
    this.out.u32(to.index);
    this.out.u32(from.index);
    if (from.ordered) this.atomicFence();
  }

  // Control

  /** How many blocks are open. */
  get nesting(): number {
    return this.depth;
  }

  private hint(hint: Hint | undefined): void {
    if (hint !== undefined) this.hints.push({ at: this.out.length, likely: hint === "likely" });
  }

  private condition(value: Val): void {
    if (value.type !== "i32") throw new TypeError(`a condition must be i32, not ${value.type}`);
    value.emit(this.out);
  }

  private nested(body: (label: Label) => void): void {
    this.depth++;
    body({ depth: this.depth });
    this.depth--;
  }

  /** A block; branching to its label leaves it. */
  block(body: (end: Label) => void): void {
    this.out.u8(0x02);
    this.out.u8(EMPTY_BLOCK);
    this.nested(body);
    this.out.u8(0x0b);
  }

  /** A loop; branching to its label starts the next round, falling off its end leaves it. */
  loop(body: (head: Label) => void): void {
    this.out.u8(0x03);
    this.out.u8(EMPTY_BLOCK);
    this.nested(body);
    this.out.u8(0x0b);
  }

  /** `if`; branching to the label leaves it. A constant condition emits only the side that is taken. */
  if(condition: Val, whenTrue: (end: Label) => void, whenFalse?: (end: Label) => void, hint?: Hint): void {
    if (condition.constant !== undefined) {
      const side = condition.constant !== 0 ? whenTrue : whenFalse;
      // A side that takes no label can only go on behind the `if`.
      if (side !== undefined && side.length === 0) side({ depth: this.depth });
      else if (side !== undefined) this.block(side);
      return;
    }
    this.condition(condition);
    this.hint(hint);
    this.out.u8(0x04);
    this.out.u8(EMPTY_BLOCK);
    this.nested(whenTrue);
    if (whenFalse !== undefined) {
      this.out.u8(0x05);
      this.nested(whenFalse);
    }
    this.out.u8(0x0b);
  }

  private distance(label: Label): number {
    if (label.depth > this.depth) throw new Error("branch to a label that is not open");
    return this.depth - label.depth;
  }

  br(label: Label): void {
    this.out.u8(0x0c);
    this.out.u32(this.distance(label));
  }

  brIf(label: Label, condition: Val, hint?: Hint): void {
    this.condition(condition);
    this.hint(hint);
    this.out.u8(0x0d);
    this.out.u32(this.distance(label));
  }

  brTable(index: Val, labels: readonly Label[], otherwise: Label): void {
    this.condition(index);
    this.out.u8(0x0e);
    this.out.u32(labels.length);
    for (const label of labels) this.out.u32(this.distance(label));
    this.out.u32(this.distance(otherwise));
  }

  /** Runs `body` unless all conditions hold, which they usually do; each is a branch of its own. */
  unlessAll(conditions: readonly Val[], body: () => void): void {
    const [first, ...others] = conditions;
    if (others.length === 0) {
      this.if(first.eqz(), body, undefined, "unlikely");
      return;
    }
    this.block((end) => {
      this.block((fails) => {
        for (const condition of conditions.slice(0, -1)) this.brIf(fails, condition.eqz(), "unlikely");
        this.brIf(end, conditions[conditions.length - 1], "likely");
      });
      body();
    });
  }

  /** One body per value of `index` (several values may share one), then `otherwise`; no fall-through between them. */
  switch(
    index: Val,
    cases: readonly (readonly [values: readonly number[], body: () => void])[],
    otherwise: () => void,
  ): void {
    const constant = index.constant;
    if (constant !== undefined) {
      const taken = cases.find(([values]) => values.includes(Number(constant)));
      (taken?.[1] ?? otherwise)();
      return;
    }
    const top = Math.max(-1, ...cases.flatMap(([values]) => values));
    this.block((end) => {
      const labels: Label[] = [];
      const open = (k: number): void => {
        if (k > cases.length) {
          const table = Array.from({ length: top + 1 }, (_, value) => {
            const found = cases.findIndex(([values]) => values.includes(value));
            return labels[found < 0 ? cases.length : found];
          });
          this.brTable(index, table, labels[cases.length]);
          return;
        }
        this.block((label) => {
          labels[cases.length - k] = label;
          open(k + 1);
        });
        const position = cases.length - k;
        if (position < cases.length) {
          cases[position][1]();
        } else otherwise();
        this.br(end);
      };
      open(0);
    });
  }

  unreachable(): void {
    this.out.u8(0x00);
  }

  ret(...values: Operand[]): void {
    this.results(values);
    this.out.u8(0x0f);
  }

  /** Leaves the given values as the results at the end of the function. */
  results(values: readonly Operand[]): void {
    if (values.length !== this.type.results.length) {
      throw new TypeError(`the function gives ${this.type.results.length} results, not ${values.length}`);
    }
    values.forEach((value, i) => {
      this.typed(value, this.type.results[i], "a result").emit(this.out);
    });
  }

  // Calls

  private takeResult(type: ValType): Local {
    const local = this.newLocal(type, true);
    this.out.u8(0x21);
    this.out.u32(local.index);
    return local;
  }

  private args(type: FuncType, args: readonly Operand[], name: string): void {
    if (args.length !== type.params.length)
      throw new TypeError(`${name} takes ${type.params.length} arguments, not ${args.length}`);
    args.forEach((arg, i) => {
      this.typed(arg, type.params[i], `argument ${i} of ${name}`).emit(this.out);
    });
  }

  private takeResults(type: FuncType): Local[] {
    const locals = type.results.map((result) => this.newLocal(result, true));
    for (const local of locals.toReversed()) {
      this.out.u8(0x21);
      this.out.u32(local.index);
    }
    return locals;
  }

  /** Calls a function and fixes all its results. */
  callMany(func: FuncRef, args: readonly Operand[]): Local[] {
    this.args(func.type, args, func.name);
    this.out.u8(0x10);
    this.out.u32(func.index);
    return this.takeResults(func.type);
  }

  /** Calls a function whose last result is an i32, branches where that is not zero, and else fixes the other results. */
  callOrLeave(func: FuncRef, args: readonly Operand[], label: Label): Local[] {
    this.args(func.type, args, func.name);
    this.out.u8(0x10);
    this.out.u32(func.index);
    this.hint("unlikely");
    this.out.u8(0x0d);
    this.out.u32(this.distance(label));
    return this.takeResults({ params: [], results: func.type.results.slice(0, -1) });
  }

  /** Calls a function of one result and fixes it. */
  call(func: FuncRef, ...args: Operand[]): Local {
    const results = this.callMany(func, args);
    if (results.length !== 1) throw new TypeError(`${func.name} gives ${results.length} results, not one`);
    return results[0];
  }

  /** Calls a function without results. */
  invoke(func: FuncRef, ...args: Operand[]): void {
    const results = this.callMany(func, args);
    if (results.length !== 0) throw new TypeError(`${func.name} gives results that are not taken`);
  }

  callIndirect(table: TableRef, type: FuncType, index: Val, args: readonly Operand[]): Local[] {
    this.args(type, args, "the function called");
    this.condition(index);
    this.out.u8(0x11);
    this.out.u32(this.module.typeIndex(type));
    this.out.u32(table.index);
    return this.takeResults(type);
  }

  /** Tail call: the called function's results are this function's. */
  returnCall(func: FuncRef, ...args: Operand[]): void {
    this.args(func.type, args, func.name);
    this.out.u8(0x12);
    this.out.u32(func.index);
  }

  returnCallIndirect(table: TableRef, type: FuncType, index: Val, args: readonly Operand[]): void {
    this.args(type, args, "the function called");
    this.condition(index);
    this.out.u8(0x13);
    this.out.u32(this.module.typeIndex(type));
    this.out.u32(table.index);
  }

  // Exceptions (exnref proposal)

  throw(tag: TagRef, ...args: Operand[]): void {
    this.args(tag.type, args, tag.name);
    this.out.u8(0x08);
    this.out.u32(tag.index);
  }

  /** Runs `body`; an exception with `tag` continues after it in `handler`, with the tag's values in fixed locals. */
  tryCatch(tag: TagRef, body: () => void, handler: (values: Local[]) => void): void {
    this.block((end) => {
      const type: FuncType = { params: [], results: tag.type.params };
      this.out.u8(0x02);
      if (type.results.length === 0) this.out.u8(EMPTY_BLOCK);
      else this.out.s32(this.module.typeIndex(type));
      this.depth++;
      this.out.u8(0x1f);
      this.out.u8(EMPTY_BLOCK);
      this.out.u32(1);
      this.out.u8(0x00);
      this.out.u32(tag.index);
      this.out.u32(0);
      this.depth++;
      body();
      this.depth--;
      this.out.u8(0x0b);
      this.br(end);
      this.out.u8(0x0b);
      this.depth--;
      handler(this.takeResults(type));
    });
  }

  /** Writes the body: locals, code, end. Gives the branch hints with offsets from the start of the body. */
  finish(into: ByteWriter): { at: number; likely: boolean }[] {
    if (this.depth !== 0) throw new Error("a block is still open");
    const body = new ByteWriter();
    const groups: [ValType, number][] = [];
    for (const type of this.localTypes) {
      const last = groups.at(-1);
      if (last !== undefined && last[0] === type) last[1]++;
      else groups.push([type, 1]);
    }
    body.u32(groups.length);
    for (const [type, count] of groups) {
      body.u32(count);
      body.u8(VAL_TYPE_CODE[type]);
    }
    const start = body.length;
    body.raw(this.out.view());
    body.u8(0x0b);
    into.u32(body.length);
    into.raw(body.view());
    return this.hints.map(({ at, likely }) => ({ at: at + start, likely }));
  }
}
