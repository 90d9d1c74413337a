// A bare vCPU for tests: flat memory, registers set from outside, instruction bytes run until they stop. The guest stops with HLT, or the
// rig stops it where an exception is delivered (an IDT of HLT gates).

import { cpuidTable } from "../../src/cpu/cpuid-leaves.ts";
import { type EngineModel, ramMemoryBytes, TranslateEngine } from "../../src/cpu/engine.ts";
import { VAR } from "../../src/cpu/layout.ts";
import { parseCpuModel } from "../../src/cpu/model.ts";
import { engineModule, engineModuleWithJournal } from "../../src/cpu/standard-module.ts";
import type { RegionChecker } from "../../src/cpu/translator/check.ts";
import { compileOnSameThread } from "../../src/cpu/translator/same-thread.ts";
import { Translator, type TranslatorHost } from "../../src/cpu/translator/translator.ts";
import { CPUID_TABLE } from "../../src/isa/cpuid-table.ts";
import { FEATURE_NAMES } from "../../src/isa/features.ts";
import {
  CPL,
  CR0,
  CR0_BIT,
  CR3,
  CR4,
  CR4_BIT,
  EFER,
  EFER_BIT,
  GDTR_BASE,
  GDTR_LIMIT,
  IDTR_BASE,
  IDTR_LIMIT,
  LDTR,
  MXCSR,
  RIP,
  SEGMENTS,
  type SegmentFields,
  SREG,
  TR,
} from "../../src/isa/state.ts";
import { INSTRUCTIONS } from "../../src/isa/table.ts";
import type { EngineHost } from "../../src/vmm/engine.ts";

/** With SKEP_TEST_TRANSLATE set, whatever a rig runs is run twice, the second time translated. */
const FORCED = process.env.SKEP_TEST_TRANSLATE !== undefined;

export const RAM_BYTES = 16 << 20;

/** Places in guest RAM. */
export const AT = {
  PML4: 0x1000,
  PDPT: 0x2000,
  PD: 0x3000,
  GDT: 0x4000,
  IDT: 0x5000,
  TSS: 0x6000,
  /** One HLT for each vector, 16 bytes apart. */
  HANDLERS: 0x8000,
  STACK_TOP: 0x20000,
  EXCEPTION_STACK_TOP: 0x30000,
  CODE: 0x100000,
  DATA: 0x200000,
} as const;

/** Code that the translator cannot make is found by tests, and survived by machines. */
export function onFault(error: unknown): never {
  throw error;
}

/** Selectors of the rig's GDT. */
export const SELECTOR = {
  CODE64: 0x08,
  DATA: 0x10,
  CODE32: 0x18,
  TSS: 0x20,
  USER_CODE32: 0x33,
  USER_DATA: 0x3b,
  USER_CODE64: 0x43,
  CODE16: 0x48,
  DATA16: 0x50,
} as const;

/** The model that has every feature the tables know. */
export function everything(table?: Uint8Array): EngineModel {
  return {
    features: new Set(FEATURE_NAMES),
    cpuidTable: table ?? new Uint8Array(0),
    cpuidTableAddress: CPUID_TABLE,
    signature: 0x000306a9,
  };
}

/** One processor of the model that has all that there is, with its CPUID. */
export function maxModel(): EngineModel {
  return everything(cpuidTable(parseCpuModel("max"), { apicId: 0, cpus: 1, tscHz: 1e9, crystalHz: 25e6 }));
}

export class Rig {
  readonly ram: WebAssembly.Memory;
  readonly bytes: Uint8Array;
  readonly view: DataView;
  readonly engine: TranslateEngine;
  readonly ports: { port: number; bytes: number; value: number }[] = [];
  /** What the next IN gives. */
  input = 0;

  /** `threshold`: executions after which code is translated, or what makes the translator; without it everything is interpreted. */
  constructor(
    model: EngineModel = everything(),
    host: Partial<EngineHost> = {},
    threshold: number | ((host: TranslatorHost) => Translator) | undefined = FORCED ? 1 : undefined,
    /** Guest RAM that another rig has made. */
    shared?: WebAssembly.Memory,
    /** Checks the regions that the translator makes. */
    checker?: RegionChecker,
    /** Another engine module than the standard one. */
    module?: WebAssembly.Module,
  ) {
    const pages = ramMemoryBytes(RAM_BYTES) / 65536;
    this.ram = shared ?? new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
    this.bytes = new Uint8Array(this.ram.buffer);
    this.view = new DataView(this.ram.buffer);
    this.engine = new TranslateEngine({
      module: module ?? (checker === undefined ? engineModule() : engineModuleWithJournal()),
      checker,
      ram: this.ram,
      ramBytes: RAM_BYTES,
      slots: [{ gpa: 0, length: RAM_BYTES, host: 0, writable: true }],
      model,
      ...(threshold === undefined
        ? {}
        : {
            translator:
              typeof threshold === "function"
                ? threshold
                : (engine) =>
                    new Translator(engine, {
                      compiler: compileOnSameThread({ instructions: INSTRUCTIONS, onFault }),
                      threshold,
                      largeAfter: 30,
                    }),
          }),
      host: {
        portIn: () => this.input,
        portOut: (port, bytes, value) => this.ports.push({ port, bytes, value }),
        mmioRead: () => 0xffffffff,
        mmioWrite: () => undefined,
        readMsr: () => undefined,
        writeMsr: () => false,
        tscNow: () => 0,
        readCr8: () => 0,
        writeCr8: () => undefined,
        random32: () => 4,
        protectPage: () => undefined,
        codeWritten: () => undefined,
        anomaly: () => undefined,
        ...host,
      },
    });
    if (shared === undefined) this.tables();
  }

  private tables(): void {
    const { view } = this;
    // Identity map of 1 GiB by 2 MiB pages, user and writable.
    view.setBigUint64(AT.PML4, BigInt(AT.PDPT) | 7n, true);
    view.setBigUint64(AT.PDPT, BigInt(AT.PD) | 7n, true);
    for (let n = 0; n < 512; n++) view.setBigUint64(AT.PD + n * 8, (BigInt(n) << 21n) | 0x87n, true);
    const descriptors = [
      0n,
      0x00af9b000000ffffn, // 08 code64
      0x00cf93000000ffffn, // 10 data
      0x00cf9b000000ffffn, // 18 code32
      0x0000890000000067n | (BigInt(AT.TSS) << 16n), // 20 TSS
      0n,
      0x00cffb000000ffffn, // 30 user code32
      0x00cff3000000ffffn, // 38 user data
      0x00affb000000ffffn, // 40 user code64
      0x00009b000000ffffn, // 48 code16
      0x000093000000ffffn, // 50 data16
    ];
    descriptors.forEach((d, n) => {
      view.setBigUint64(AT.GDT + n * 8, d, true);
    });
    view.setBigUint64(AT.TSS + 4, BigInt(AT.EXCEPTION_STACK_TOP), true);
    for (let vector = 0; vector < 256; vector++) {
      const handler = AT.HANDLERS + vector * 16;
      this.bytes[handler] = 0xf4;
      view.setBigUint64(
        AT.IDT + vector * 16,
        BigInt(handler & 0xffff) | (BigInt(SELECTOR.CODE64) << 16n) | (0xeen << 40n),
        true,
      );
    }
  }

  segment(fields: SegmentFields, selector: number, attr: number, limit = 0xffffffff, base = 0): void {
    this.engine.set(fields.selector, selector);
    this.engine.set(fields.attr, attr);
    this.engine.set(fields.limit, limit);
    this.engine.set(fields.base, base);
  }

  /** 64-bit mode with identity paging and the exception-catching IDT. */
  longMode(level: 0 | 3 = 0): this {
    const e = this.engine;
    e.reset("power-on");
    e.set(CR0, (CR0_BIT.PG | CR0_BIT.PE | CR0_BIT.ET | CR0_BIT.NE | CR0_BIT.WP | CR0_BIT.MP) >>> 0);
    e.set(CR3, AT.PML4);
    e.set(CR4, CR4_BIT.PAE | CR4_BIT.OSFXSR | CR4_BIT.OSXMMEXCPT | CR4_BIT.OSXSAVE | CR4_BIT.FSGSBASE);
    e.set(EFER, EFER_BIT.LME | EFER_BIT.LMA | EFER_BIT.NXE | EFER_BIT.SCE);
    e.set(CPL, level);
    const dpl = level << 5;
    this.segment(SEGMENTS[SREG.CS], level === 3 ? SELECTOR.USER_CODE64 : SELECTOR.CODE64, 0xa09b | dpl);
    for (const n of [SREG.SS, SREG.DS, SREG.ES, SREG.FS, SREG.GS]) {
      this.segment(SEGMENTS[n], level === 3 ? SELECTOR.USER_DATA : SELECTOR.DATA, 0xc093 | dpl);
    }
    this.systemTables();
    e.setGpr(4, BigInt(AT.STACK_TOP));
    e.set(MXCSR, 0x1f80);
    e.registersChanged();
    return this;
  }

  private systemTables(): void {
    const e = this.engine;
    e.set(GDTR_BASE, AT.GDT);
    e.set(GDTR_LIMIT, 0x57);
    e.set(IDTR_BASE, AT.IDT);
    e.set(IDTR_LIMIT, 0xfff);
    this.segment(TR, SELECTOR.TSS, 0x8b, 0x67, AT.TSS);
    this.segment(LDTR, 0, 0x10000, 0);
  }

  /** 32-bit protected mode, flat, without paging. Exceptions are not caught: they end in a shutdown. */
  protectedMode(): this {
    const e = this.engine;
    e.reset("power-on");
    e.set(CR0, CR0_BIT.PE | CR0_BIT.ET | CR0_BIT.NE);
    e.set(CR4, CR4_BIT.OSFXSR | CR4_BIT.OSXMMEXCPT);
    this.segment(SEGMENTS[SREG.CS], SELECTOR.CODE32, 0xc09b);
    for (const n of [SREG.SS, SREG.DS, SREG.ES, SREG.FS, SREG.GS]) this.segment(SEGMENTS[n], SELECTOR.DATA, 0xc093);
    e.set(GDTR_BASE, AT.GDT);
    e.set(GDTR_LIMIT, 0x57);
    e.set(IDTR_LIMIT, 0);
    e.setGpr(4, BigInt(AT.STACK_TOP));
    e.registersChanged();
    return this;
  }

  /** Real mode with CS:IP = 1000:0000 and all data segments at 0. */
  realMode(): this {
    const e = this.engine;
    e.reset("power-on");
    this.segment(SEGMENTS[SREG.CS], 0x1000, 0x9b, 0xffff, 0x10000);
    e.setGpr(4, 0x8000n);
    e.registersChanged();
    return this;
  }

  /** Writes bytes and tells the engine, as a device would. */
  write(at: number, bytes: Iterable<number>): void {
    const data = Uint8Array.from(bytes);
    this.bytes.set(data, at);
    this.engine.memoryWritten(at, data.length);
  }

  /** Runs code at an instruction pointer until HLT, shutdown or the budget; gives the EXIT reason. */
  run(code: Iterable<number>, at: number = AT.CODE, budget = 100000): number {
    this.write(at, code);
    this.engine.set(RIP, at);
    if (FORCED) this.rehearse(budget);
    return this.engine.run(budget);
  }

  /** Runs ahead, so that all blocks become hot and are translated, and takes back what that did. */
  private rehearse(budget: number): void {
    const { engine, bytes } = this;
    const before = bytes.slice(0, RAM_BYTES);
    const state = engine.save();
    const ports = this.ports.length;
    const pending = new DataView(engine.memory.buffer).getUint32(VAR.EVENT_PENDING, true);
    engine.run(budget);
    this.ports.length = ports;
    for (let page = 0; page < RAM_BYTES; page += 4096) {
      const was = before.subarray(page, page + 4096);
      if (Buffer.compare(was, bytes.subarray(page, page + 4096)) !== 0) this.write(page, was);
    }
    engine.restore(state);
    engine.setPendingEvents(pending);
  }

  /** The vector whose handler stopped the run, or -1. */
  caught(): number {
    const rip = Number(this.engine.get(RIP)) - 1;
    const vector = (rip - AT.HANDLERS) / 16;
    return Number.isInteger(vector) && vector >= 0 && vector < 256 ? vector : -1;
  }
}
