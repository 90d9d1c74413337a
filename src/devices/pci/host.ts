// The host bridge and its one bus. Configuration is reached by mechanism #1 (PCI Local Bus Specification 3.0, 3.2.2.3.2) and through the
// enhanced mechanism (PCI Express Base Specification 4.0, 7.2.2). The bridge has the identity of QEMU's generic PCI Express bridge, which
// no operating system has quirks for.

import {
  type AccessSize,
  type AnomalyLog,
  BANK_DWORDS,
  type InterruptPin,
  type IoSpace,
  type MmioHandler,
  type MsiSink,
  type PortHandler,
  type RegisterBank,
} from "../../vmm/bus.ts";
import type { Schema, Stateful } from "../../vmm/state.ts";
import { CONFIG_BYTES } from "./config-space.ts";
import { FUNCTION_SCHEMA, PciFunction } from "./function.ts";

export interface AddressWindow {
  readonly base: number;
  readonly length: number;
}

/** The ranges that the bridge forwards to its bus. */
export interface PciWindows {
  readonly io: AddressWindow;
  readonly memory32: AddressWindow;
  readonly memory64: AddressWindow;
}

export interface PciHostOptions {
  readonly io: IoSpace;
  readonly msi: MsiSink;
  readonly log: AnomalyLog;
  /** The four lines that the pins of all functions are spread over. */
  readonly intx: readonly InterruptPin[];
  readonly ecam: { readonly base: number; readonly buses: number };
  readonly windows: PciWindows;
  /** Takes accesses to port 0xcf9, which lies among the bridge's ports, when they are no dwords. */
  readonly port0cf9?: PortHandler;
}

export const CONFIG_ADDRESS = 0xcf8;
export const CONFIG_DATA = 0xcfc;
const CONFIG_ENABLE = 0x80000000;
const RESET_CONTROL = 0xcf9;
const ECAM_BYTES_PER_BUS = 1 << 20;
const LINES = 4;

/** Targets of configuration accesses: the functions of bus 0, and all of the other buses. */
export const CONFIG_TARGETS = 257;
const OTHER_BUSES = 256;

/** Where all targets' registers lie one after the other: the number of what a value of CONFIG_ADDRESS selects; -1 where it selects none. */
export function configRegister(configAddress: number): number {
  if (configAddress >>> 31 === 0) return -1;
  const target = (configAddress >>> 16) & 0xff ? OTHER_BUSES : (configAddress >>> 8) & 0xff;
  return CONFIG_BYTES * target + (configAddress & 0xfc);
}

const HOST_BRIDGE = {
  name: "pci-host",
  vendorId: 0x1b36,
  deviceId: 0x0008,
  classCode: 0x060000,
  subsystemVendorId: 0x1af4,
  subsystemId: 0x1100,
};

const SCHEMA: Schema = {
  kind: "pci-host",
  version: 1,
  fields: { configAddress: "u32", bridge: { section: FUNCTION_SCHEMA } },
  derived: ["windows", "options", "functions", "asserting", "ports", "ecam"],
};

export class PciHost implements Stateful {
  readonly schema = SCHEMA;
  readonly windows: PciWindows;
  /** Function 0 of device 0. */
  readonly bridge = new PciFunction(HOST_BRIDGE);
  configAddress = 0;
  private readonly options: PciHostOptions;
  /** By device * 8 + function. */
  private readonly functions = new Map<number, PciFunction>();
  /** Who asserts each of the four lines: a line is low when nobody does. */
  private readonly asserting: Set<PciFunction>[] = Array.from({ length: LINES }, () => new Set());

  constructor(options: PciHostOptions) {
    this.options = options;
    this.windows = options.windows;
    this.add(0, 0, this.bridge);
    options.io.mapPorts("pci-host", CONFIG_ADDRESS, 8, this.ports);
    options.io.mapMmio("pci-host", options.ecam.base, options.ecam.buses * ECAM_BYTES_PER_BUS, this.ecam);
  }

  /** Puts a function into a slot. Function 0 of a device must be there for the others to be found. */
  add(device: number, func: number, pciFunction: PciFunction): void {
    const key = device * 8 + func;
    const present = this.functions.get(key);
    if (present !== undefined)
      throw new Error(`PCI slot ${device}.${func} holds ${present.name} already; ${pciFunction.name} can't have it`);
    this.functions.set(key, pciFunction);
    if (func !== 0) {
      const first = this.functions.get(device * 8);
      first?.setMultiFunction();
    } else {
      for (let other = 1; other < 8; other++) if (this.functions.has(key + other)) pciFunction.setMultiFunction();
    }
    const line = this.asserting[PciHost.line(device, pciFunction.interruptPin)];
    const pin = this.options.intx[PciHost.line(device, pciFunction.interruptPin)];
    pciFunction.attach({
      io: this.options.io,
      msi: this.options.msi,
      log: this.options.log,
      setPin: (asserted) => {
        if (asserted === line.has(pciFunction)) return;
        if (asserted) line.add(pciFunction);
        else line.delete(pciFunction);
        pin.set(line.size > 0);
      },
      adoptPin: (asserted) => {
        if (asserted) line.add(pciFunction);
        else line.delete(pciFunction);
      },
      forwards: (kind, base, length) => this.forwards(kind, base, length),
      rangeReleased: () => {
        for (const other of this.functions.values()) other.retryBlocked();
      },
    });
  }

  /** Which of the four lines a pin (1 to 4) of a device is wired to: the spread of PCI-to-PCI Bridge Specification 1.2, 9.1. */
  static line(device: number, pin: number): number {
    return (device + Math.max(pin - 1, 0)) % LINES;
  }

  /** All functions with their device and function numbers, in order. */
  *list(): Generator<{ device: number; func: number; pciFunction: PciFunction }> {
    const keys = [...this.functions.keys()].sort((a, b) => a - b);
    for (const key of keys) {
      const pciFunction = this.functions.get(key);
      if (pciFunction !== undefined) yield { device: key >> 3, func: key & 7, pciFunction };
    }
  }

  /** Keeps what is at a target in a bank of registers: all ones where no function is. */
  keepConfig(target: number, bank: RegisterBank): void {
    const pciFunction = this.functions.get(target);
    if (pciFunction !== undefined) {
      pciFunction.keepConfig(bank);
      return;
    }
    bank.dwords.fill(0xffffffff);
    for (let dword = 0; dword < BANK_DWORDS; dword++) bank.answer(dword);
  }

  readConfig(bus: number, devfn: number, offset: number, size: AccessSize): number {
    const target = bus === 0 ? this.functions.get(devfn) : undefined;
    return target === undefined ? allOnes(size) : target.readConfig(offset, size);
  }

  writeConfig(bus: number, devfn: number, offset: number, size: AccessSize, value: number): void {
    if (bus === 0) this.functions.get(devfn)?.writeConfig(offset, size, value);
  }

  /** Resets the bridge alone; devices reset the functions that they own. */
  reset(): void {
    this.configAddress = 0;
    this.bridge.reset();
  }

  private forwards(kind: "memory" | "io", base: number, length: number): boolean {
    const { io, memory32, memory64 } = this.windows;
    const windows = kind === "io" ? [io] : [memory32, memory64];
    return windows.some((window) => base >= window.base && base + length <= window.base + window.length);
  }

  private readonly ports: PortHandler = {
    readPort: (port, size) => {
      if (port >= CONFIG_DATA) {
        const { configAddress } = this;
        if (configAddress < CONFIG_ENABLE) return allOnes(size);
        const offset = (configAddress & 0xfc) + port - CONFIG_DATA;
        return this.readConfig((configAddress >> 16) & 0xff, (configAddress >> 8) & 0xff, offset, size);
      }
      // Only a dword access reaches CONFIG_ADDRESS; anything narrower is an ordinary access to that port (3.2.2.3.2).
      if (port === CONFIG_ADDRESS && size === 4) return this.configAddress;
      if (port === RESET_CONTROL && size === 1) return this.options.port0cf9?.readPort(port, size) ?? allOnes(size);
      return allOnes(size);
    },
    writePort: (port, size, value) => {
      if (port >= CONFIG_DATA) {
        const { configAddress } = this;
        if (configAddress < CONFIG_ENABLE) return;
        const offset = (configAddress & 0xfc) + port - CONFIG_DATA;
        this.writeConfig((configAddress >> 16) & 0xff, (configAddress >> 8) & 0xff, offset, size, value);
      } else if (port === CONFIG_ADDRESS && size === 4) {
        // Bits 30:24 are reserved, 1:0 are zero.
        this.configAddress = (value & 0x80fffffc) >>> 0;
      } else if (port === RESET_CONTROL && size === 1) {
        this.options.port0cf9?.writePort(port, size, value);
      }
    },
  };

  /** Address bits: bus 27:20, device 19:15, function 14:12, register 11:0. */
  private readonly ecam: MmioHandler = {
    readMmio: (offset, size) => this.readConfig(offset >> 20, (offset >> 12) & 0xff, offset & 0xfff, size),
    writeMmio: (offset, size, value) =>
      this.writeConfig(offset >> 20, (offset >> 12) & 0xff, offset & 0xfff, size, value),
  };
}

function allOnes(size: AccessSize): number {
  return 2 ** (8 * size) - 1;
}
