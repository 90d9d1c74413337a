// Runs the semantics of single instructions outside the engine, on fixed registers: V and P operands are number 1, W, U, Q and N number 2, G
// is RBX, E and R are RSI, memory is where RDI points. One function a row and form.

import { parseRow, type Row } from "../../../src/cpu/decode-table.ts";
import { type EngineParts, EnvBase, HelperEnv } from "../../../src/cpu/env.ts";
import type { Helper, Service } from "../../../src/isa/helper.ts";
import type { InstructionGroup } from "../../../src/isa/instruction.ts";
import type { Access, Bits, Sem } from "../../../src/isa/semantics.ts";
import { VECTOR_BASE, VECTOR_STRIDE, X87_BASE } from "../../../src/isa/state.ts";
import type { Code } from "../../../src/wasm/code.ts";
import type { Memory } from "../../../src/wasm/memory.ts";
import { type FuncRef, ModuleBuilder } from "../../../src/wasm/module.ts";
import { i32, i64, type Operand, type Val } from "../../../src/wasm/value.ts";

interface WasmInstance {
  readonly exports: { readonly [name: string]: unknown };
}
/** What the rig needs of the WebAssembly API, which the type libraries in use do not declare. */
const { Instance, Module } = (
  globalThis as unknown as {
    WebAssembly: { Instance: new (module: object) => WasmInstance; Module: new (bytes: Uint8Array) => object };
  }
).WebAssembly;

/** Where the rig keeps the immediate in the vCPU's memory, and the guest's memory operand in RAM. */
export const IMMEDIATE = 0x3ff0;
export const OPERAND = 0x100;

const RBX = 3;
const RSI = 6;

class RigSemantics extends EnvBase implements Sem {
  readonly opcode: number;
  readonly opsize: Bits;
  readonly lock = false;
  readonly long = true;
  private readonly row: Row;
  private readonly memoryForm: boolean;

  constructor(c: Code, parts: EngineParts, row: Row, opsize: Bits, memoryForm: boolean) {
    super(c, parts);
    this.row = row;
    this.opcode = row.opcode;
    this.opsize = opsize;
    this.memoryForm = memoryForm;
  }

  protected leaveFault(): void {
    this.c.ret(1);
  }
  done(): void {
    this.c.ret(0);
  }
  override load(bits: Bits | 128, linear: Val, _?: Access): Val {
    return this.c.let(this.loadRam(bits, linear.wrap()));
  }
  override store(bits: Bits | 128, linear: Val, value: Val): void {
    this.c.store(this.ram, bits / 8, linear.wrap(), value);
  }
  override probeWrite(): void {}

  isMemory(n: number): boolean {
    const { kind } = this.row.operands[n];
    return kind === "M" || (this.memoryForm && "EWQ".includes(kind));
  }
  bits(n: number): Bits | 128 {
    const { size } = this.row.operands[n];
    const fixed: { [size: string]: Bits | 128 } = { b: 8, w: 16, d: 32, q: 64, x: 128 };
    return fixed[size] ?? this.opsize;
  }
  private place(n: number): number {
    const { kind } = this.row.operands[n];
    if ("VWU".includes(kind)) return VECTOR_BASE + VECTOR_STRIDE * (kind === "V" ? 1 : 2);
    if ("PQN".includes(kind)) return X87_BASE + 16 * (kind === "P" ? 1 : 2);
    return 8 * (kind === "G" ? RBX : RSI);
  }
  read(n: number): Val {
    const { kind } = this.row.operands[n];
    const bits = this.bits(n);
    if (kind === "I") return this.c.let(this.immediate());
    if (this.isMemory(n)) return this.load(bits, this.address(n));
    const place = this.place(n);
    if (bits === 128) return this.c.let(this.cpu.ldv128(0, place));
    return this.c.let(this.readRegister(i32(place), bits));
  }
  write(n: number, value: Val): void {
    const { kind } = this.row.operands[n];
    const bits = this.bits(n);
    if (this.isMemory(n)) {
      this.store(bits, this.address(n), value);
      return;
    }
    const place = this.place(n);
    if (bits === 128) this.c.stv128(this.cpu, 0, value, place);
    else if ("VWU".includes(kind)) {
      this.c.st64(this.cpu, 0, value.zx(), place);
      this.c.st64(this.cpu, 0, 0, place + 8);
    } else if ("PQN".includes(kind)) {
      this.c.st64(this.cpu, 0, value, place);
      this.c.st64(this.cpu, 0, 0xffff, place + 8);
    } else this.writeRegister(i32(place), bits, value);
  }
  readAligned(n: number): Val {
    return this.read(n);
  }
  writeAligned(n: number, value: Val): void {
    this.write(n, value);
  }
  readFloat(n: number, type: "f32" | "f64"): Val {
    const place = this.isMemory(n) ? this.address(n).wrap() : i32(this.place(n));
    const memory = this.isMemory(n) ? this.ram : this.cpu;
    return this.c.let(type === "f64" ? memory.ldf64(place) : memory.ldf32(place));
  }
  writeFloat(n: number, value: Val): void {
    this.c.store(this.cpu, value.type === "f64" ? 8 : 4, i32(this.place(n)), value);
  }
  modify(n: number, change: (old: Val) => Val): void {
    this.write(n, change(this.read(n)));
  }
  modifyAt(): void {
    throw new Error("the rig has no modifyAt");
  }
  address(_: number): Val {
    return i64(OPERAND);
  }
  addressAt(_: number, displacement: Operand): Val {
    return i64(OPERAND).add(displacement);
  }
  effectiveAddress(): Val {
    return i64(OPERAND);
  }
  registerNumber(n: number): Val {
    return i32(n === 0 ? 1 : 2);
  }
  immediate(): Val {
    return this.cpu.ld32(0, IMMEDIATE);
  }
  segmentNumber(): Val {
    return i32(3);
  }
  addressSize(): Val {
    return i32(2);
  }
  rip(): Val {
    return i64(0);
  }
  nextRip(): Val {
    return i64(0);
  }
  jumpRelative(): void {}
  jumpTo(): void {}
  continueAtRip(): void {}
  endBlock(): void {}
  restart(): void {}
  exit(): void {}
  usually(): void {}
}

export interface Form {
  readonly name: string;
  readonly row: Row;
  readonly memory: boolean;
  readonly bytes: readonly number[];
  readonly immediate: boolean;
  readonly run: () => number;
}

export interface Rig {
  readonly forms: readonly Form[];
  readonly cpu: DataView;
  readonly ram: DataView;
}

/** A module with a function for each helper that is asked for. */
export class HelperModule {
  readonly builder = new ModuleBuilder();
  readonly cpu: Memory;
  readonly ram: Memory;
  readonly parts: EngineParts;
  private readonly refs = new Map<Helper | Service, FuncRef>();
  private readonly waiting: Helper[] = [];
  private readonly storeByte: FuncRef;

  constructor() {
    this.cpu = this.builder.memory({ min: 1 });
    this.ram = this.builder.memory({ min: 1 });
    this.builder.exportMemory("cpu", this.cpu);
    this.builder.exportMemory("ram", this.ram);
    this.storeByte = this.builder.func("storeByte", ["i64", "i32", "i32"], ["i32"], (c) => {
      c.st8(this.ram, c.params[0].wrap(), c.params[1]);
      c.results([0]);
    });
    const none = (): FuncRef => {
      throw new Error("the rig has no slow paths");
    };
    this.parts = {
      cpu: this.cpu,
      ram: this.ram,
      func: (target) => this.func(target),
      slowLoad: none,
      slowStore: (bits) => (bits === 8 ? this.storeByte : none()),
      slowLocked: none,
      probeWrite: this.builder.func("probeWrite", ["i64", "i32", "i32"], ["i32"], (c) => c.results([0])),
    } as EngineParts;
  }

  func(target: Helper | Service): FuncRef {
    const known = this.refs.get(target);
    if (known !== undefined) return known;
    const results = target.faults ? (["i32", ...target.results] as const) : target.results;
    if (!("body" in target)) {
      const service = this.builder.func(target.name, target.params, results, (c) => c.results(results.map(() => 0)));
      this.refs.set(target, service);
      return service;
    }
    const ref = this.builder.declare(target.name, target.params, results);
    this.refs.set(target, ref);
    this.waiting.push(target);
    return ref;
  }

  finish(): WasmInstance {
    for (let next = this.waiting.pop(); next !== undefined; next = this.waiting.pop()) {
      const target = next;
      this.builder.define(this.func(target), (c) => {
        target.body(new HelperEnv(c, this.parts, target.faults), ...c.params);
        c.unreachable();
      });
    }
    return new Instance(new Module(this.builder.toBytes()));
  }
}

function encode(row: Row, opsize: Bits, memory: boolean): number[] {
  const bytes: number[] = [];
  if (typeof row.prefix === "number" && row.prefix > 0) bytes.push([0x66, 0xf3, 0xf2][row.prefix - 1]);
  if (opsize === 16) bytes.unshift(0x66);
  const byteRegister = row.operands.some(({ kind, size }) => kind === "E" && size === "b");
  if (opsize === 64 || byteRegister) bytes.push(opsize === 64 ? 0x48 : 0x40);
  bytes.push(...[[], [0x0f], [0x0f, 0x38], [0x0f, 0x3a]][row.map], row.opcode);
  if (row.modrm) {
    const regOperand = row.operands.find(({ kind }) => "VPG".includes(kind));
    const rmOperand = row.operands.find(({ kind }) => "WUQNER".includes(kind));
    const reg = row.reg >= 0 ? row.reg : regOperand?.kind === "G" ? RBX : 1;
    const rm = rmOperand !== undefined && "ER".includes(rmOperand.kind) ? RSI : 2;
    bytes.push(memory ? (reg << 3) | 7 : 0xc0 | (reg << 3) | rm);
  }
  return bytes;
}

/** Builds the functions of all rows of a group. */
export function buildRig(group: InstructionGroup): Rig {
  const module = new HelperModule();
  const planned: Omit<Form, "run">[] = [];
  for (const instruction of group) {
    for (const text of instruction.rows) {
      const row = parseRow(instruction, text);
      const wide = row.operands.some(({ size }) => size === "y") || instruction.name.startsWith("PCMPESTR");
      const sizes: Bits[] = row.operands.some(({ size }) => size === "v") ? [16, 32, 64] : wide ? [32, 64] : [32];
      const either = row.operands.some(({ kind }) => "EWQ".includes(kind));
      for (const opsize of sizes) {
        for (const memory of row.mod === "memory" ? [true] : either ? [false, true] : [false]) {
          const name = `${instruction.name} ${text}${opsize === 32 ? "" : ` (${opsize})`}${memory ? " (memory)" : ""}`;
          const ref = module.builder.func(name, [], ["i32"], (c) => {
            const sem = new RigSemantics(c, module.parts, row, opsize, memory);
            instruction.semantics(sem);
            c.results([0]);
          });
          module.builder.exportFunc(`f${planned.length}`, ref);
          const immediate = row.operands.some(({ kind }) => kind === "I");
          planned.push({ name, row, memory, bytes: encode(row, opsize, memory), immediate });
        }
      }
    }
  }
  const instance = module.finish();
  const view = (name: string): DataView => new DataView((instance.exports[name] as { buffer: ArrayBuffer }).buffer);
  const forms = planned.map((form, i) => ({ ...form, run: instance.exports[`f${i}`] as () => number }));
  return { forms, cpu: view("cpu"), ram: view("ram") };
}
