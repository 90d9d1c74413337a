// All ACPI tables of the machine, placed one behind the other: ACPI 6.4, 5.2.

import { type FirmwareConfig, resolveConfig } from "./config.ts";
import { buildDsdt } from "./dsdt.ts";
import { buildFacs, FACS_LENGTH } from "./facs.ts";
import { buildFadt } from "./fadt.ts";
import { buildHpetTable } from "./hpet-table.ts";
import { buildMadt } from "./madt.ts";
import { buildMcfg } from "./mcfg.ts";
import type { GuestWrite } from "./record.ts";
import { buildRsdt, buildXsdt } from "./rsdp.ts";
import { buildSpcr } from "./spcr.ts";
import { buildSrat } from "./srat.ts";

const TABLE_ALIGNMENT = 64;

export interface AcpiTables {
  readonly writes: GuestWrite[];
  readonly rsdt: number;
  readonly xsdt: number;
  /** Bytes used from `tableBase`. */
  readonly length: number;
}

/** Builds the tables from `tableBase` up and the FACS at `facsBase`. The length does not depend on the addresses. */
export function buildAcpiTables(config: FirmwareConfig, tableBase: number, facsBase: number): AcpiTables {
  const resolved = resolveConfig(config);
  if (facsBase % FACS_LENGTH !== 0) throw new RangeError("the FACS must lie at a multiple of 64");
  const writes: GuestWrite[] = [{ gpa: facsBase, bytes: buildFacs() }];
  let next = tableBase;
  const place = (bytes: Uint8Array): number => {
    const gpa = next;
    writes.push({ gpa, bytes });
    next = gpa + Math.ceil(bytes.length / TABLE_ALIGNMENT) * TABLE_ALIGNMENT;
    return gpa;
  };
  const dsdt = place(buildDsdt(resolved));
  const listed = [
    buildFadt(resolved, facsBase, dsdt),
    buildMadt(resolved),
    buildHpetTable(resolved),
    buildMcfg(resolved),
    buildSpcr(resolved),
    buildSrat(resolved),
  ]
    .filter((table) => table !== undefined)
    .map(place);
  const rsdt = place(buildRsdt(listed));
  const xsdt = place(buildXsdt(listed));
  return { writes, rsdt, xsdt, length: next - tableBase };
}
