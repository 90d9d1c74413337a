// A module that holds the x87 instructions alone, each as an exported function on operands at fixed places, so that they can be tested
// without decoder and memory management.

import { type EngineParts, HelperEnv } from "../../../src/cpu/env.ts";
import { usuallyInMemory } from "../../../src/cpu/float-stack.ts";
import { type Helper, hostAddress, type Service } from "../../../src/isa/helper.ts";
import type { Instruction } from "../../../src/isa/instruction.ts";
import type { Bits, FloatStack, Sem } from "../../../src/isa/semantics.ts";
import type { Code } from "../../../src/wasm/code.ts";
import type { Memory } from "../../../src/wasm/memory.ts";
import { type FuncRef, ModuleBuilder } from "../../../src/wasm/module.ts";
import { asVal, i32, i64, type Operand, type Val } from "../../../src/wasm/value.ts";

/** Memory operands lie here. */
export const OPERAND_AT = 0x4000;
/** The i of ST(i). */
export const INDEX_AT = 0x5000;
const RIP_VALUE = 0x1234;

const WIDTHS: { readonly [letter: string]: Bits } = { w: 16, d: 32, q: 64 };

class ScratchSem extends HelperEnv implements Sem {
  readonly opsize: Bits;
  readonly lock = false;
  readonly long = true;
  readonly opcode = 0;
  private readonly row: string;

  constructor(c: Code, parts: EngineParts, row: string, opsize: Bits) {
    super(c, parts, true);
    this.opsize = opsize;
    this.row = row;
  }

  override load(bits: Bits | 128, linear: Val): Val {
    return this.c.let(this.loadRam(bits, linear.wrap()));
  }
  override store(bits: Bits | 128, linear: Val, value: Val): void {
    this.c.store(this.ram, bits / 8, linear.wrap(), value);
  }
  override probeWrite(): void {}

  isMemory(): boolean {
    return this.row.includes(": M");
  }
  bits(): Bits {
    return WIDTHS[this.row.at(-1) ?? ""];
  }
  read(): Val {
    return this.load(this.bits(), i64(OPERAND_AT));
  }
  write(_n: number, value: Val): void {
    this.store(this.bits(), i64(OPERAND_AT), value);
  }
  address(): Val {
    return i64(OPERAND_AT);
  }
  addressAt(_n: number, displacement: Operand): Val {
    return i64(OPERAND_AT).add(asVal(displacement, "i64"));
  }
  registerNumber(): Val {
    return this.cpu.ld32(0, INDEX_AT);
  }
  rip(): Val {
    return i64(RIP_VALUE);
  }
  segmentNumber(): Val {
    return i32(3);
  }

  usually<T>(
    operand: () => T,
    body: (stack: FloatStack, operand: T) => void,
    otherwise: (operand: T) => void,
    waits = true,
  ): void {
    usuallyInMemory(this, operand, body, otherwise, waits);
  }

  private refuse(): never {
    throw new Error("not for x87 instructions");
  }
  readAligned = this.refuse;
  writeAligned = this.refuse;
  readFloat = this.refuse;
  writeFloat = this.refuse;
  modify = this.refuse;
  modifyAt = this.refuse;
  effectiveAddress = this.refuse;
  immediate = this.refuse;
  addressSize = this.refuse;
  nextRip = this.refuse;
  jumpRelative = this.refuse;
  jumpTo = this.refuse;
  continueAtRip = this.refuse;
  endBlock = this.refuse;
  restart = this.refuse;
  exit = this.refuse;
}

/** Helpers in the scratch module reach memory directly, too. */
class ScratchHelperEnv extends HelperEnv {
  override load(bits: Bits | 128, linear: Val): Val {
    return this.c.let(this.loadRam(bits, linear.wrap()));
  }
  override store(bits: Bits | 128, linear: Val, value: Val): void {
    this.c.store(this.ram, bits / 8, linear.wrap(), value);
  }
  override probeWrite(): void {}
}

export interface Scratch {
  readonly memory: DataView;
  /** By instruction, row and operand size; gives 1 where an exception is pending. */
  readonly run: (instruction: Instruction, row: string, opsize: 16 | 32) => () => number;
}

function exportName(instruction: Instruction, row: string, opsize: number): string {
  return `${instruction.name} ${row} ${opsize}`;
}

export function buildScratch(instructions: readonly Instruction[]): Scratch {
  const module = new ModuleBuilder();
  const anomalyRef = module.importFunc("host", "anomaly", ["i32", "i32"], []);
  const memory: Memory = module.memory({ min: 2 });
  const known = new Map<string, FuncRef>();
  const waiting: [Helper, FuncRef][] = [];
  const unused = (): never => {
    throw new Error("no TLB here");
  };
  const parts: EngineParts = {
    cpu: memory,
    ram: memory,
    func(target: Helper | Service): FuncRef {
      if (target.name === "anomaly") return anomalyRef;
      let ref = known.get(target.name);
      if (ref === undefined) {
        ref = module.declare(target.name, target.params, target.faults ? ["i32", ...target.results] : target.results);
        known.set(target.name, ref);
        if ("body" in target) waiting.push([target, ref]);
        else if (target === hostAddress) module.define(ref, (c) => c.ret(-1));
        else throw new Error(`service ${target.name} is not there`);
      }
      return ref;
    },
    slowLoad: unused,
    slowStore: unused,
    slowLocked: unused,
    get probeWrite(): FuncRef {
      return unused();
    },
  };
  const rows = instructions.flatMap((instruction) => instruction.rows.map((row) => ({ instruction, row })));
  for (const { instruction, row } of rows) {
    for (const opsize of [16, 32] as const) {
      const name = exportName(instruction, row, opsize);
      const func = module.func(name, [], ["i32"], (c) => {
        const sem = new ScratchSem(c, parts, row, opsize);
        instruction.semantics(sem);
        sem.done();
        c.unreachable();
      });
      module.exportFunc(name, func);
    }
  }
  for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
    const [target, ref] = next;
    module.define(ref, (c) => {
      target.body(new ScratchHelperEnv(c, parts, target.faults), ...c.params);
      c.unreachable();
    });
  }
  module.exportMemory("memory", memory);
  const compiled = new WebAssembly.Module(module.toBytes());
  const instance = new WebAssembly.Instance(compiled, { host: { anomaly: () => {} } });
  const exported = instance.exports as { memory: WebAssembly.Memory } & Record<string, () => number>;
  return {
    memory: new DataView(exported.memory.buffer),
    run: (instruction, row, opsize) => exported[exportName(instruction, row, opsize)],
  };
}
