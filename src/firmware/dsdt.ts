// Differentiated System Description Table: the devices that no bus can enumerate, the PCI root with its windows and interrupt wiring,
// and soft-off. ACPI 6.4, chapters 6 (device configuration), 8.4 (processors), 9.13 (PCI root), 7.4.2 (_Sx).

import {
  and,
  arg,
  createDWordField,
  type Data,
  device,
  eisaId,
  equal,
  ifElse,
  integer,
  local,
  method,
  name,
  notEqual,
  or,
  pack,
  reference,
  returns,
  scope,
  store,
  string,
  type Term,
  uuid,
} from "./aml.ts";
import { PM_LENGTH, pciGsi, type ResolvedConfig } from "./config.ts";
import {
  busWindow,
  ioPorts,
  ioWindow,
  irq,
  memory32Fixed,
  memoryWindow32,
  memoryWindow64,
  type Resource,
  resourceTemplate,
} from "./resources.ts";
import { finishTable, startTable } from "./sdt.ts";

const PCI_SLOTS = 32;
const INTERRUPT_PINS = 4;
const PCI_CONFIG_PORTS = { first: 0xcf8, count: 8 } as const;
const VGA_MEMORY = { base: 0xa0000, length: 0x20000 } as const;
const HPET_LENGTH = 0x400;
const APIC_LENGTH = 0x1000;
const ECAM_BYTES_PER_BUS = 1 << 20;

const crs = (...resources: Resource[]): Term => name("_CRS", resourceTemplate(...resources));

/** One device a processor; _UID ties it to its MADT entry (8.4.1). */
function processors(config: ResolvedConfig): Term[] {
  return config.cpus.map((_, uid) =>
    device(
      `C${uid.toString(16).toUpperCase().padStart(3, "0")}`,
      name("_HID", string("ACPI0007")),
      name("_UID", integer(uid)),
    ),
  );
}

/** Each of the 32 slots with its four pins on fixed inputs of the I/O APIC (6.2.13). */
function interruptRouting(config: ResolvedConfig): Data {
  const routes: Data[] = [];
  for (let slot = 0; slot < PCI_SLOTS; slot++) {
    for (let pin = 0; pin < INTERRUPT_PINS; pin++) {
      const allFunctions = slot * 0x10000 + 0xffff;
      const gsi = config.ioapic.gsiBase + pciGsi(slot, pin);
      routes.push(pack(integer(allFunctions), integer(pin), integer(0), integer(gsi)));
    }
  }
  return pack(...routes);
}

/**
 * _OSC of a PCI Express root (PCI Firmware Specification 3.3, 4.5.1): hands native hot-plug, power-management events, error reporting, the
 * capability structures and latency tolerance reporting to the operating system; keeps SHPC, which no slot here has.
 */
function operatingSystemCapabilities(): Term {
  const GRANTED = 0x3d;
  const STATUS = { unrecognizedUuid: 1 << 2, unrecognizedRevision: 1 << 3, capabilitiesMasked: 1 << 4 } as const;
  const status = reference("CDW1");
  const control = reference("CDW3");
  return method(
    "_OSC",
    4,
    true,
    createDWordField(arg(3), integer(0), "CDW1"),
    ifElse(
      equal(arg(0), uuid("33db4d5b-1ff7-401c-9657-7441c03dd766")),
      [
        createDWordField(arg(3), integer(8), "CDW3"),
        and(control, integer(GRANTED), local(0)),
        ifElse(notEqual(arg(1), integer(1)), [or(status, integer(STATUS.unrecognizedRevision), status)]),
        ifElse(notEqual(control, local(0)), [or(status, integer(STATUS.capabilitiesMasked), status)]),
        store(local(0), control),
      ],
      [or(status, integer(STATUS.unrecognizedUuid), status)],
    ),
    returns(arg(3)),
  );
}

function pciRoot(config: ResolvedConfig): Term {
  const { first, count } = PCI_CONFIG_PORTS;
  const windows = [
    busWindow(0, config.ecamBuses),
    ioPorts(first, count),
    ioWindow(0, first),
    ioWindow(first + count, 0x10000 - first - count),
  ];
  if (config.vga) windows.push(memoryWindow32(VGA_MEMORY.base, VGA_MEMORY.length));
  if (config.pciWindow32.length > 0) windows.push(memoryWindow32(config.pciWindow32.base, config.pciWindow32.length));
  if (config.pciWindow64.length > 0) windows.push(memoryWindow64(config.pciWindow64.base, config.pciWindow64.length));
  return device(
    "PCI0",
    name("_HID", eisaId("PNP0A08")),
    name("_CID", eisaId("PNP0A03")),
    name("_UID", integer(0)),
    name("_SEG", integer(0)),
    name("_BBN", integer(0)),
    crs(...windows),
    name("_PRT", interruptRouting(config)),
    operatingSystemCapabilities(),
  );
}

/** Address space that belongs to the board, so that the operating system neither hands it out nor distrusts the MCFG table. */
function motherboardResources(config: ResolvedConfig): Term {
  const ecamLength = config.ecamBuses * ECAM_BYTES_PER_BUS;
  return device(
    "MBRD",
    name("_HID", eisaId("PNP0C02")),
    name("_UID", integer(0)),
    crs(
      ioPorts(config.pmBase, PM_LENGTH),
      memory32Fixed(config.ecamBase, ecamLength),
      memory32Fixed(config.ioapic.base, APIC_LENGTH),
      memory32Fixed(config.localApicBase, APIC_LENGTH),
    ),
  );
}

function legacyDevices(config: ResolvedConfig): Term[] {
  const { com1 } = config;
  const devices = [
    device("PIC", name("_HID", eisaId("PNP0000")), crs(ioPorts(0x20, 2), ioPorts(0xa0, 2), irq(2))),
    device("TMR", name("_HID", eisaId("PNP0100")), crs(ioPorts(0x40, 4), irq(0))),
    device("RTC", name("_HID", eisaId("PNP0B00")), crs(ioPorts(0x70, 2), irq(8))),
    device(
      "HPET",
      name("_HID", eisaId("PNP0103")),
      name("_UID", integer(0)),
      crs(memory32Fixed(config.hpetBase, HPET_LENGTH)),
    ),
    device(
      "COM1",
      name("_HID", eisaId("PNP0501")),
      name("_UID", integer(1)),
      name("_DDN", string("COM1")),
      crs(ioPorts(com1.port, 8), irq(com1.irq)),
    ),
  ];
  if (config.i8042) {
    devices.push(
      device("KBD", name("_HID", eisaId("PNP0303")), crs(ioPorts(0x60, 1), ioPorts(0x64, 1), irq(1))),
      device("MOU", name("_HID", eisaId("PNP0F13")), crs(irq(12))),
    );
  }
  return devices;
}

/** Revision 2 makes AML integers 64 bits wide (19.6.28). */
export function buildDsdt(config: ResolvedConfig): Uint8Array {
  const body = [
    scope("\\_SB", ...processors(config), pciRoot(config), motherboardResources(config), ...legacyDevices(config)),
    name("\\_S5", pack(integer(config.s5SleepType), integer(config.s5SleepType), integer(0), integer(0))),
  ];
  const table = startTable("DSDT", 2);
  for (const part of body) table.bytes(part.bytes);
  return finishTable(table);
}
