// What a BIOS does to PCI before it starts an operating system, for guests that boot without one: gives each BAR an address in the host
// bridge's windows and turns decoding on (PCI Firmware Specification 3.3, 3.5). Bus mastering is left to the drivers.

import type { BarSpec, PciFunction } from "./function.ts";
import { type AddressWindow, PciHost } from "./host.ts";
import { BAR, COMMAND, HEADER } from "./registers.ts";

const NO_INTERRUPT_LINE = 0xff;
/** So that a guest which maps whole pages does not see two functions in one. */
const PAGE = 0x1000;

class Allocator {
  private next: number;
  private readonly end: number;

  constructor(window: AddressWindow) {
    this.next = window.base;
    this.end = window.base + window.length;
  }

  take(size: number, alignment: number): number | undefined {
    const base = Math.ceil(this.next / alignment) * alignment;
    if (base === 0 || base + size > this.end) return undefined;
    this.next = base + size;
    return base;
  }
}

/**
 * Places all BARs, the largest first. A 64-bit one goes below 4 GiB while there is room, since small guests can't reach further.
 * `irqLines` are what the Interrupt Line registers shall say of the four interrupt lines. Throws where a window is too small.
 */
export function assignBars(host: PciHost, irqLines: readonly number[] = []): void {
  const io = new Allocator(host.windows.io);
  const memory32 = new Allocator(host.windows.memory32);
  const memory64 = new Allocator(host.windows.memory64);
  const wanted: { pciFunction: PciFunction; bar: BarSpec }[] = [];
  for (const { pciFunction } of host.list()) for (const bar of pciFunction.barSpecs) wanted.push({ pciFunction, bar });
  wanted.sort((a, b) => b.bar.size - a.bar.size);

  for (const { pciFunction, bar } of wanted) {
    const alignment = bar.kind === "io" ? bar.size : Math.max(bar.size, PAGE);
    let base = bar.kind === "io" ? io.take(bar.size, alignment) : memory32.take(bar.size, alignment);
    if (base === undefined && bar.kind === "memory64") base = memory64.take(bar.size, alignment);
    if (base === undefined) throw new Error(`no room in the PCI windows for BAR ${bar.index} of ${pciFunction.name}`);
    const at = BAR.first + 4 * bar.index;
    pciFunction.writeConfig(at, 4, base % 2 ** 32);
    if (bar.kind === "memory64") pciFunction.writeConfig(at + 4, 4, Math.floor(base / 2 ** 32));
  }

  for (const { device, pciFunction } of host.list()) {
    const kinds = pciFunction.barSpecs.map((bar) => bar.kind);
    const memory = kinds.some((kind) => kind !== "io") ? COMMAND.MEMORY_SPACE : 0;
    const ports = kinds.includes("io") ? COMMAND.IO_SPACE : 0;
    const { COMMAND: command, INTERRUPT_LINE: line } = HEADER;
    pciFunction.writeConfig(command.offset, command.size, memory | ports);
    if (pciFunction.interruptPin === 0) continue;
    const irq = irqLines[PciHost.line(device, pciFunction.interruptPin)] ?? NO_INTERRUPT_LINE;
    pciFunction.writeConfig(line.offset, line.size, irq);
  }
}
