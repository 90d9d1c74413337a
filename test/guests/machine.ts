// The smallest machine that runs the kernels of guests/: RAM, COM1's transmitter, the debug exit port, and of the local APIC the interrupt
// command register, by which a guest sends itself an interrupt or an NMI (SDM Vol. 3A 10.6.1).

import { readFileSync } from "node:fs";
import { loadKernel } from "../../src/boot/kernel.ts";
import { engineModel } from "../../src/cpu/cpuid-leaves.ts";
import { ramMemoryBytes, TranslateEngine } from "../../src/cpu/engine.ts";
import { parseCpuModel } from "../../src/cpu/model.ts";
import { engineModule } from "../../src/cpu/standard-module.ts";
import { compileOnSameThread } from "../../src/cpu/translator/same-thread.ts";
import { Translator } from "../../src/cpu/translator/translator.ts";
import { E820 } from "../../src/firmware/e820.ts";
import { EXIT } from "../../src/isa/exit.ts";
import {
  CR0,
  CR3,
  CR4,
  EFER,
  GDTR_BASE,
  GDTR_LIMIT,
  IDTR_BASE,
  IDTR_LIMIT,
  LDTR,
  RIP,
  SEGMENTS,
  type SegmentFields,
  TR,
} from "../../src/isa/state.ts";
import { INSTRUCTIONS } from "../../src/isa/table.ts";
import { EVENT, INJECT } from "../../src/vmm/engine.ts";
import { onFault } from "../cpu/rig.ts";

const RAM_BYTES = 16 << 20;
const COM1 = 0x3f8;
const LINE_STATUS = 5;
const TRANSMITTER_EMPTY = 0x60;
const DEBUG_EXIT = 0xf4;
const ICR_LOW = 0xfee00300;
const DELIVERY_NMI = 4;
const SLICE = 20000;
const MOST = 2e6;

export interface GuestResult {
  readonly output: string;
  /** As skep's: (value << 1) | 1 of the debug exit port, 2 halted, 3 triple fault, 4 where it never ended. */
  readonly status: number;
  readonly retired: number;
}

const PASSED = 1;
const TRIPLE_FAULT = 3;
const RESET = 0;
/** Kernels that end in another way than through the debug exit port. */
const STATUS: { readonly [name: string]: number } = { "triple-fault": TRIPLE_FAULT, "init-reset": RESET };

/** Kernels that this machine is too small for: they need what is at the reset vector, CMOS RAM, or interrupt controllers. */
export const WHOLE_MACHINE: ReadonlySet<string> = new Set(["apic-page", "init", "init-reset", "pic"]);

/** Lines that are no check that went well. */
export function failures({ output, status }: GuestResult, name: string): string[] {
  const lines = output.split("\n").filter((line) => line !== "");
  const wrong = lines.filter((line) => !line.startsWith("ok ") && !line.startsWith("done "));
  const expected = STATUS[name] ?? PASSED;
  if (status !== expected && (wrong.length === 0 || status !== TRIPLE_FAULT))
    wrong.push(`status ${status}, not ${expected}, after: ${lines.at(-1)}`);
  if (!lines.some((line) => line.startsWith("ok "))) wrong.push("no check at all");
  return wrong;
}

const TOPOLOGY = { apicId: 0, cpus: 1, tscHz: 1e9, crystalHz: 1e9 };

export interface GuestOptions {
  /** Instructions of one run; the guest must not notice where the engine returns. */
  readonly slice?: number;
  /** Between two runs the whole state is saved, lost, and restored. */
  readonly restore?: boolean;
  /** Blocks are translated when they have run so often. */
  readonly hot?: number;
  /** How often the kernel does everything, 1 to 9. */
  readonly rounds?: number;
}

export function runGuest(
  kernel: string,
  { slice = SLICE, restore = false, hot, rounds = 1 }: GuestOptions = {},
): GuestResult {
  let output = "";
  let status: number | undefined;
  let interrupt = -1;
  let nmi = false;
  const pages = ramMemoryBytes(RAM_BYTES) / 65536;
  const ram = new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
  const pending = (): void => engine.setPendingEvents((interrupt >= 0 ? EVENT.INTERRUPT : 0) | (nmi ? EVENT.NMI : 0));
  const engine = new TranslateEngine({
    module: engineModule(),
    ram,
    ramBytes: RAM_BYTES,
    slots: [{ gpa: 0, length: RAM_BYTES, host: 0, writable: true }],
    ...(hot === undefined
      ? {}
      : {
          translator: (host) =>
            new Translator(host, {
              compiler: compileOnSameThread({ instructions: INSTRUCTIONS, onFault }),
              threshold: hot,
            }),
        }),
    model: engineModel(parseCpuModel("max"), TOPOLOGY),
    host: {
      portIn: (port, bytes) => (port === COM1 + LINE_STATUS ? TRANSMITTER_EMPTY : 0xffffffff >>> (32 - bytes * 8)),
      portOut: (port, _bytes, value) => {
        if (port === COM1) output += String.fromCharCode(value & 0xff);
        else if (port === DEBUG_EXIT) {
          status = (value << 1) | 1;
          engine.requestExit();
        }
      },
      mmioRead: () => 0xffffffff,
      mmioWrite: (low, _high, _bytes, value) => {
        if (low !== ICR_LOW) return;
        if (((value >> 8) & 7) === DELIVERY_NMI) nmi = true;
        else interrupt = value & 0xff;
        pending();
      },
      readMsr: () => undefined,
      writeMsr: () => false,
      tscNow: () => 0,
      readCr8: () => 0,
      writeCr8: () => undefined,
      random32: () => 4,
      protectPage: () => undefined,
      codeWritten: () => undefined,
      anomaly: () => undefined,
    },
  });
  const image = loadKernel(new Uint8Array(readFileSync(kernel)), {
    e820: [
      { base: 0, length: 0x9fc00, type: E820.ram },
      { base: 0x100000, length: RAM_BYTES - 0x100000, type: E820.ram },
    ],
    rsdp: 0,
    commandLine: `*${rounds}`,
  });
  const bytes = new Uint8Array(ram.buffer);
  for (const { gpa, bytes: data } of image.writes) bytes.set(data, gpa);
  start(engine, image.cpu);
  for (let left = MOST; status === undefined && left > 0; left -= slice) {
    const reason = engine.run(slice);
    if (status !== undefined) break;
    if (restore) {
      const saved = engine.save();
      engine.reset("power-on");
      engine.restore(saved);
      pending();
    }
    if (reason === EXIT.SHUTDOWN) status = 3;
    else if (nmi && engine.canInject(INJECT.NMI)) {
      nmi = false;
      engine.inject(INJECT.NMI, 2);
      pending();
    } else if (interrupt >= 0 && engine.canInject(INJECT.INTERRUPT)) {
      const vector = interrupt;
      interrupt = -1;
      engine.inject(INJECT.INTERRUPT, vector);
      pending();
    } else if (reason === EXIT.HLT) status = 2;
  }
  return { output, status: status ?? 4, retired: engine.retired() };
}

function start(engine: TranslateEngine, cpu: ReturnType<typeof loadKernel>["cpu"]): void {
  Object.values(cpu.gprs).forEach((value, n) => {
    engine.setGpr(n, value);
  });
  engine.set(RIP, cpu.rip);
  engine.setRflags(Number(cpu.rflags));
  for (const [field, value] of [
    [CR0, cpu.cr0],
    [CR3, cpu.cr3],
    [CR4, cpu.cr4],
    [EFER, cpu.efer],
    [GDTR_BASE, cpu.gdtr.base],
    [GDTR_LIMIT, cpu.gdtr.limit],
    [IDTR_BASE, cpu.idtr.base],
    [IDTR_LIMIT, cpu.idtr.limit],
  ] as const) {
    engine.set(field, value);
  }
  const segment = (fields: SegmentFields, name: keyof typeof cpu.segments): void => {
    const { selector, base, limit, attributes } = cpu.segments[name];
    engine.set(fields.selector, selector);
    engine.set(fields.base, base);
    engine.set(fields.limit, limit);
    engine.set(fields.attr, attributes);
  };
  (["es", "cs", "ss", "ds", "fs", "gs"] as const).forEach((name, n) => {
    segment(SEGMENTS[n], name);
  });
  segment(LDTR, "ldtr");
  segment(TR, "tr");
  engine.registersChanged();
}
