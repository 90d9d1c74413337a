// Serial Port Console Redirection table, revision 2: names COM1 as the console of firmware and early boot.

import type { ResolvedConfig } from "./config.ts";
import { ACCESS, ADDRESS_SPACE, finishTable, genericAddress, startTable } from "./sdt.ts";

const INTERFACE_16550 = 0;
/** Interrupt type: bit 0 the 8259's IRQ, bit 1 the I/O APIC's GSI. */
const INTERRUPT_8259_AND_IOAPIC = 0x03;
const BAUD_115200 = 7;
const TERMINAL_ANSI = 3;
const NO_PCI_DEVICE = 0xffff;

export function buildSpcr(config: ResolvedConfig): Uint8Array {
  const t = startTable("SPCR", 2).u8(INTERFACE_16550).zeros(3);
  genericAddress(t, ADDRESS_SPACE.systemIo, 8, ACCESS.byte, config.com1.port);
  t.u8(INTERRUPT_8259_AND_IOAPIC, config.com1.irq).u32(config.ioapic.gsiBase + config.com1.irq);
  t.u8(BAUD_115200, 0, 1, 0, TERMINAL_ANSI, 0); // no parity, one stop bit, no flow control
  t.u16(NO_PCI_DEVICE, NO_PCI_DEVICE).u8(0, 0, 0).u32(0).u8(0).u32(0);
  return finishTable(t);
}
