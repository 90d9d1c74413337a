// A host bridge in a fake machine, and what a driver of PCI does with it.

import { assignBars } from "../../src/devices/pci/assign-bars.ts";
import type { PciFunction } from "../../src/devices/pci/function.ts";
import { PciHost } from "../../src/devices/pci/host.ts";
import type { AccessSize, PortHandler } from "../../src/vmm/bus.ts";
import { FakeMachine } from "./fakes.ts";

export const ECAM = 0xe0000000;
export const WINDOWS = {
  io: { base: 0xc000, length: 0x1000 },
  memory32: { base: 0xc0000000, length: 0x20000000 },
  memory64: { base: 0x800000000, length: 0x800000000 },
};

export class PciBench {
  readonly machine = new FakeMachine();
  readonly host: PciHost;

  constructor(port0cf9?: PortHandler) {
    const { io, msi, log, intx } = this.machine;
    this.host = new PciHost({ io, msi, log, intx, ecam: { base: ECAM, buses: 256 }, windows: WINDOWS, port0cf9 });
  }

  add(device: number, pciFunction: PciFunction, func = 0): void {
    this.host.add(device, func, pciFunction);
  }

  assign(irqLines?: readonly number[]): void {
    assignBars(this.host, irqLines);
  }

  read(device: number, offset: number, size: AccessSize, func = 0): number {
    return this.machine.io.read(ECAM + (device << 15) + (func << 12) + offset, size);
  }

  write(device: number, offset: number, size: AccessSize, value: number, func = 0): void {
    this.machine.io.write(ECAM + (device << 15) + (func << 12) + offset, size, value);
  }

  /** Where the capabilities with this id start. */
  capabilities(device: number, id: number): number[] {
    const found: number[] = [];
    let at = this.read(device, 0x34, 1);
    for (let steps = 0; at !== 0 && steps < 48; steps++) {
      if (this.read(device, at, 1) === id) found.push(at);
      at = this.read(device, at + 1, 1);
    }
    return found;
  }

  /** The address in a memory BAR. */
  bar(device: number, index: number): number {
    const low = this.read(device, 0x10 + 4 * index, 4);
    const high = (low & 6) === 4 ? this.read(device, 0x14 + 4 * index, 4) : 0;
    return high * 2 ** 32 + ((low & ~0xf) >>> 0);
  }
}
