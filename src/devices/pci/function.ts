// One PCI function: header, BARs, interrupts. PCI Local Bus Specification 3.0, 6.2 (configuration space) and 2.2.6 (interrupt pins).

import {
  type AnomalyLog,
  BANK_DWORDS,
  type IoSpace,
  type MmioHandler,
  type MsiSink,
  type PortHandler,
  type RegisterBank,
} from "../../vmm/bus.ts";
import type { Fields, Schema, Stateful } from "../../vmm/state.ts";
import { CONFIG_BYTES, CONFIG_SCHEMA, ConfigSpace } from "./config-space.ts";
import { Msi } from "./msi.ts";
import { Msix } from "./msix.ts";
import { BAR, BAR_TYPE, COMMAND, HEADER, MULTI_FUNCTION, STATUS } from "./registers.ts";

/** A range of addresses that a function decodes. Offsets that the handler sees are from the range's start, for ports too. */
export interface BarSpec {
  readonly index: number;
  readonly kind: "memory32" | "memory64" | "io";
  /** A power of two; at least 16 bytes of memory, 4 ports. */
  readonly size: number;
  readonly prefetchable?: boolean;
  readonly handler: MmioHandler;
}

export interface FunctionSpec {
  /** Names the function as owner of address ranges and in the anomaly log. */
  readonly name: string;
  readonly vendorId: number;
  readonly deviceId: number;
  readonly revision?: number;
  /** Base class, subclass and programming interface, as one 24-bit number. */
  readonly classCode: number;
  readonly subsystemVendorId?: number;
  readonly subsystemId?: number;
  /** 1 to 4 for INTA to INTD; absent: the function has no pin. */
  readonly interruptPin?: 1 | 2 | 3 | 4;
}

/** What a slot of the bus does for the function in it. */
export interface PciSlot {
  readonly io: IoSpace;
  readonly msi: MsiSink;
  readonly log: AnomalyLog;
  /** The function's pin, before it is shared with others. */
  setPin(asserted: boolean): void;
  /** Takes the pin's level over after a restore, without an edge. */
  adoptPin(asserted: boolean): void;
  /** Does the host bridge forward this range to the bus? */
  forwards(kind: "memory" | "io", base: number, length: number): boolean;
  /** A range was given up, which may let another function have the place that it was programmed to. */
  rangeReleased(): void;
}

/** Code behind a capability: reached after a write to it, or before a read of it. */
export interface CapabilityHook {
  readonly offset: number;
  readonly length: number;
  written?(offset: number, size: number): void;
  beforeRead?(offset: number, size: number): void;
}

interface Bar {
  readonly spec: BarSpec;
  mappedAt: number | undefined;
  unmap: (() => void) | undefined;
}

const BASE_FIELDS: Fields = { config: { section: CONFIG_SCHEMA }, pinLevel: "bool" };
const DERIVED = ["name", "interruptPin", "bars", "hooks", "slot", "msi", "blocked", "commandChanged"];
/** Of a function without MSI-X; with it there is a section more. */
export const FUNCTION_SCHEMA: Schema = {
  kind: "pci-function",
  version: 1,
  fields: BASE_FIELDS,
  derived: [...DERIVED, "msix"],
};

export class PciFunction implements Stateful {
  schema = FUNCTION_SCHEMA;
  readonly name: string;
  readonly interruptPin: number;
  readonly config = new ConfigSpace();
  msix: Msix | undefined;
  msi: Msi | undefined;
  /** The interrupt that the device asks for by pin, whether or not it may show. */
  pinLevel = false;
  /** Called when the guest has written the command register. */
  commandChanged: (() => void) | undefined;
  private readonly bars: Bar[] = [];
  private readonly hooks: CapabilityHook[] = [];
  private slot: PciSlot | undefined;
  /** A BAR points to where it can't be mapped. */
  private blocked = false;

  constructor(spec: FunctionSpec) {
    this.name = spec.name;
    this.interruptPin = spec.interruptPin ?? 0;
    const { config } = this;
    config.initialize(HEADER.VENDOR_ID, spec.vendorId);
    config.initialize(HEADER.DEVICE_ID, spec.deviceId);
    config.initialize(HEADER.REVISION_ID, spec.revision ?? 0);
    config.initialize(HEADER.PROG_IF, spec.classCode & 0xff);
    config.initialize(HEADER.SUBCLASS, (spec.classCode >> 8) & 0xff);
    config.initialize(HEADER.BASE_CLASS, spec.classCode >> 16);
    config.initialize(HEADER.SUBSYSTEM_VENDOR_ID, spec.subsystemVendorId ?? spec.vendorId);
    config.initialize(HEADER.SUBSYSTEM_ID, spec.subsystemId ?? 0);
    config.initialize(HEADER.INTERRUPT_PIN, this.interruptPin);
  }

  addBar(spec: BarSpec): void {
    const { index, kind, size } = spec;
    const low = { offset: BAR.first + 4 * index, size: 4 } as const;
    const prefetchable = spec.prefetchable ? BAR_TYPE.prefetchable : 0;
    const mask = kind === "io" ? -size & ~3 : size > 0xffffffff ? 0 : -size & ~0xf;
    this.config.define({ low: { ...low, writable: mask >>> 0 } });
    this.config.initialize(low, kind === "io" ? BAR_TYPE.io : BAR_TYPE[kind] | prefetchable);
    if (kind === "memory64") {
      const high = size > 0xffffffff ? -Math.floor(size / 2 ** 32) : -1;
      this.config.define({ high: { offset: low.offset + 4, size: 4, writable: high >>> 0 } });
    }
    this.bars.push({ spec, mappedAt: undefined, unmap: undefined });
  }

  addCapabilityHook(hook: CapabilityHook): void {
    this.hooks.push(hook);
  }

  /** Adds MSI-X; its two regions must be placed in a BAR by the caller. */
  addMsix(vectors: number, place: { bar: number; table: number; pending: number }): Msix {
    const msix = new Msix(this.config, vectors, place, this.sendMessage);
    this.msix = msix;
    this.addCapabilityHook({ ...msix.capabilityRange, written: () => this.interruptModeChanged() });
    const fields = { ...BASE_FIELDS, msix: { section: msix.schema } };
    this.schema = { ...this.schema, fields, derived: DERIVED };
    return msix;
  }

  addMsi(vectors: number): Msi {
    const msi = new Msi(this.config, vectors, this.sendMessage);
    this.msi = msi;
    this.addCapabilityHook({ ...msi.capabilityRange, written: () => this.interruptModeChanged() });
    return msi;
  }

  /** Says that the device has other functions than this one, its first (6.2.1). */
  setMultiFunction(): void {
    this.config.initialize(HEADER.HEADER_TYPE, MULTI_FUNCTION);
  }

  attach(slot: PciSlot): void {
    this.slot = slot;
  }

  get barSpecs(): readonly BarSpec[] {
    return this.bars.map((bar) => bar.spec);
  }

  get busMaster(): boolean {
    return (this.config.get(HEADER.COMMAND) & COMMAND.BUS_MASTER) !== 0;
  }

  readConfig(offset: number, size: number): number {
    if (offset >= CONFIG_BYTES) return 2 ** (8 * size) - 1;
    for (const hook of this.hooks) if (overlaps(hook, offset, size)) hook.beforeRead?.(offset, size);
    return this.config.read(offset, size);
  }

  /** Keeps the configuration space in a bank of registers. What a read does something for is still to be asked for. */
  keepConfig(bank: RegisterBank): void {
    this.config.keepIn(bank.dwords);
    for (let dword = 0; dword < BANK_DWORDS; dword++)
      if (!this.hooks.some((hook) => hook.beforeRead !== undefined && overlaps(hook, 4 * dword, 4))) bank.answer(dword);
  }

  writeConfig(offset: number, size: number, value: number): void {
    if (offset >= CONFIG_BYTES) return;
    this.config.write(offset, size, value);
    const command = overlaps({ offset: HEADER.COMMAND.offset, length: 2 }, offset, size);
    if (command || overlaps({ offset: BAR.first, length: BAR.end - BAR.first }, offset, size)) this.updateBars();
    if (command) {
      this.interruptModeChanged();
      this.commandChanged?.();
    }
    for (const hook of this.hooks) if (overlaps(hook, offset, size)) hook.written?.(offset, size);
  }

  /** Drives the function's interrupt pin (2.2.6). */
  setPin(asserted: boolean): void {
    this.pinLevel = asserted;
    this.updatePin();
  }

  /** Where a BAR points to now, whether it is decoded or not. */
  barAddress(index: number): number {
    const bar = this.bars.find((b) => b.spec.index === index);
    if (bar === undefined) return 0;
    const at = BAR.first + 4 * index;
    const low = this.config.read(at, 4);
    if (bar.spec.kind === "io") return (low & ~3) >>> 0;
    const high = bar.spec.kind === "memory64" ? this.config.read(at + 4, 4) : 0;
    return high * 2 ** 32 + ((low & ~0xf) >>> 0);
  }

  /** Tries again to map what could not be mapped. */
  retryBlocked(): void {
    if (this.blocked) this.mapBars();
  }

  reset(): void {
    this.config.reset();
    this.msix?.reset();
    this.setPin(false);
    this.updateBars();
  }

  afterRestore(): void {
    this.updateBars();
    this.slot?.adoptPin(this.pinShown());
  }

  /** Unmasking or enabling may let messages go; enabling messages silences the pin (6.8.3.3). */
  private interruptModeChanged(): void {
    this.updatePin();
    this.msi?.deliverPending();
    this.msix?.deliverPending();
  }

  private pinShown(): boolean {
    const disabled = (this.config.get(HEADER.COMMAND) & COMMAND.INTERRUPT_DISABLE) !== 0;
    return this.pinLevel && !disabled && !this.msi?.enabled && !this.msix?.enabled;
  }

  private updatePin(): void {
    const status = this.config.get(HEADER.STATUS) & ~STATUS.INTERRUPT;
    this.config.set(HEADER.STATUS, status | (this.pinLevel ? STATUS.INTERRUPT : 0));
    this.slot?.setPin(this.pinShown());
  }

  /** A message is a memory write of the function's own, so it needs the bus (6.8.3, 6.2.2). */
  private readonly sendMessage = (low: number, high: number, data: number): boolean => {
    if (this.slot === undefined || !this.busMaster) return false;
    this.slot.msi.sendMsi(high === 0 ? BigInt(low) : (BigInt(high) << 32n) | BigInt(low), data);
    return true;
  };

  /** The address at which a BAR is to be decoded now. */
  private wanted(bar: Bar): number | undefined {
    const { index, kind, size } = bar.spec;
    const gate = kind === "io" ? COMMAND.IO_SPACE : COMMAND.MEMORY_SPACE;
    if ((this.config.get(HEADER.COMMAND) & gate) === 0) return undefined;
    const base = this.barAddress(index);
    if (base === 0 || !this.slot?.forwards(kind === "io" ? "io" : "memory", base, size)) return undefined;
    return base;
  }

  private updateBars(): void {
    let released = false;
    for (const bar of this.bars) {
      if (bar.unmap === undefined || this.wanted(bar) === bar.mappedAt) continue;
      bar.unmap();
      bar.unmap = undefined;
      bar.mappedAt = undefined;
      released = true;
    }
    this.mapBars();
    if (released) this.slot?.rangeReleased();
  }

  private mapBars(): void {
    this.blocked = false;
    for (const bar of this.bars) {
      const base = this.wanted(bar);
      if (bar.unmap !== undefined || base === undefined || this.slot === undefined) continue;
      try {
        bar.unmap = this.map(this.slot.io, bar.spec, base);
        bar.mappedAt = base;
      } catch {
        this.blocked = true;
        this.slot.log.anomaly(this.name, "a BAR was placed on a range that is taken");
      }
    }
  }

  private map(io: IoSpace, spec: BarSpec, base: number): () => void {
    const { handler } = spec;
    if (spec.kind !== "io") return io.mapMmio(this.name, base, spec.size, handler);
    const ports: PortHandler = {
      readPort: (port, size) => handler.readMmio(port - base, size),
      writePort: (port, size, value) => handler.writeMmio(port - base, size, value),
    };
    return io.mapPorts(this.name, base, spec.size, ports);
  }
}

function overlaps(range: { offset: number; length: number }, offset: number, size: number): boolean {
  return offset < range.offset + range.length && range.offset < offset + size;
}
