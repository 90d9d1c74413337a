// Makes one vCPU of a machine: the core's part and the engine that its configuration names. On whichever thread it is to run.

import { engineModel } from "../cpu/cpuid-leaves.ts";
import { type EngineOptions, TranslateEngine } from "../cpu/engine.ts";
import { apicIdOf } from "../cpu/topology.ts";
import { SkepError } from "../errors.ts";
import type { Host } from "../host/host.ts";
import { MAXPHYADDR } from "../isa/state.ts";
import type { Engine, EngineHost } from "../vmm/engine.ts";
import { BASE_EXTENDED } from "../vmm/io/apic-base.ts";
import type { LocalApic } from "../vmm/io/lapic.ts";
import type { GuestRam } from "../vmm/memory.ts";
import { CRYSTAL_HZ, TSC_HZ } from "../vmm/tsc.ts";
import { Vcpu, type VcpuOptions } from "../vmm/vcpu.ts";
import type { MachineConfig } from "./config.ts";
import { RandomWords } from "./random-words.ts";
import { SeededHost } from "./seeded-host.ts";

/** What a vCPU is connected to, and what it is made from. */
export interface VcpuMaking
  extends Pick<
    VcpuOptions,
    "clock" | "timers" | "io" | "bus" | "anomalies" | "trace" | "acknowledgePic" | "code" | "posted"
  > {
  readonly config: MachineConfig;
  readonly host: Host;
  readonly memory: GuestRam;
  /** Makes the translators of machines that translate (src/cpu/translator/standard-translator.ts). */
  readonly translator: EngineOptions["translator"];
  /** Makes what checks the translated code of a vCPU, where the configuration asks for it. */
  readonly checker?: (() => EngineOptions["checker"]) | undefined;
  /** The vCPU's own memory, where other threads know it; otherwise a new one. */
  readonly cpuMemory?: WebAssembly.Memory;
  readonly sharesThread: boolean;
  /** Instead of the engine that the configuration names; for tests of what is around it. */
  createEngine?(host: EngineHost, memory: GuestRam, apicId: number): Engine;
}

export function makeVcpu(id: number, making: VcpuMaking): Vcpu {
  const { config, memory } = making;
  const { host } = making;
  const words = host instanceof SeededHost ? host.random : new RandomWords(host);
  const apicId = apicIdOf(config.topology, id);
  return new Vcpu({
    ...making,
    id,
    apicId,
    bootstrap: id === 0,
    features: config.cpu.features,
    ignoreUnknownMsrs: config.unknownMsrs === "ignore",
    physicalAddressBits: MAXPHYADDR,
    slots: memory.slots,
    random32: () => words.word(),
    acknowledgePic: () => making.acknowledgePic(),
    createEngine: (host) => making.createEngine?.(host, memory, apicId) ?? makeEngine(host, apicId, making),
  });
}

function makeEngine(host: EngineHost, apicId: number, making: VcpuMaking): Engine {
  const { config, memory, translator, cpuMemory } = making;
  const { cpu, cpus, topology, engine } = config;
  if (engine === "translate" && translator === undefined)
    throw new SkepError("internal", "a machine is to translate, and has no translator");
  return new TranslateEngine({
    module: making.host.engineModule,
    ram: memory.memory,
    ramBytes: memory.bytes,
    slots: memory.slots,
    model: engineModel(cpu, { apicId, cpus, topology, tscHz: TSC_HZ, crystalHz: CRYSTAL_HZ }),
    host,
    translator,
    checker: making.checker?.(),
    regionTraces: making.trace,
    ...(cpuMemory === undefined ? {} : { memory: cpuMemory }),
  });
}

/** What a BIOS does to a local APIC: x2APIC mode where ids ask for it, which is then every processor's (SDM Vol. 3A 11.12.8); and the bootstrap
 *  processor's in virtual wire mode (MP specification 1.4, 3.6.2.2). */
export function handOver(apic: LocalApic, config: MachineConfig, bootstrap: boolean): void {
  if (config.x2apicIds) apic.writeBase(apic.readBase() | BASE_EXTENDED);
  if (!bootstrap) return;
  for (const [register, value] of VIRTUAL_WIRE) {
    if (config.x2apicIds) apic.writeX2apicHalves(register, value, 0);
    else apic.writeMmio(register << 4, 4, value);
  }
}

/** Spurious vector register, LINT0 (ExtINT), LINT1 (NMI), by their numbers in x2APIC mode (table 11-6). */
const VIRTUAL_WIRE = [
  [0x0f, 0x1ff],
  [0x35, 0x700],
  [0x36, 0x400],
] as const;
