// Fixed ACPI Description Table, revision 6: ACPI 6.4, 5.2.9.

import { PM_LAYOUT, type ResolvedConfig } from "./config.ts";
import type { RecordWriter } from "./record.ts";
import { ACCESS, ADDRESS_SPACE, finishTable, genericAddress, startTable } from "./sdt.ts";

const PREFERRED_PM_PROFILE_DESKTOP = 1;

/** Fixed feature flags, table 5.10. */
const FLAG = {
  WBINVD: 1 << 0,
  PROC_C1: 1 << 2,
  /** Set: there is no fixed sleep button. PWR_BUTTON (bit 4) stays clear: the power button is a fixed one. */
  SLP_BUTTON: 1 << 5,
  /** Set: the RTC wake status is not in the fixed registers. */
  FIX_RTC: 1 << 6,
  TMR_VAL_EXT: 1 << 8,
  RESET_REG_SUP: 1 << 10,
} as const;

/** IA-PC boot architecture flags, table 5.11. */
const IAPC_BOOT_ARCH = { LEGACY_DEVICES: 1 << 0, i8042: 1 << 1, VGA_NOT_PRESENT: 1 << 2 } as const;

/** Latencies above 100 and 1000 us say that C2 and C3 are not supported. */
const P_LVL2_LAT_NONE = 0xfff;
const P_LVL3_LAT_NONE = 0xfff;

const MINOR_VERSION = 4;
export const FADT_LENGTH = 276;

function ioBlock(table: RecordWriter, port: number, length: number, access: number): void {
  genericAddress(table, ADDRESS_SPACE.systemIo, length * 8, access, port);
}

export function buildFadt(config: ResolvedConfig, facsAddress: number, dsdtAddress: number): Uint8Array {
  const { PM1a_EVT, PM1a_CNT, PM_TMR, GPE0 } = PM_LAYOUT;
  const at = (block: { offset: number }) => config.pmBase + block.offset;
  const bootArch =
    IAPC_BOOT_ARCH.LEGACY_DEVICES |
    (config.i8042 ? IAPC_BOOT_ARCH.i8042 : 0) |
    (config.vga ? 0 : IAPC_BOOT_ARCH.VGA_NOT_PRESENT);
  const flags =
    FLAG.WBINVD |
    FLAG.PROC_C1 |
    FLAG.SLP_BUTTON |
    FLAG.FIX_RTC |
    FLAG.RESET_REG_SUP |
    (config.pmTimerBits === 32 ? FLAG.TMR_VAL_EXT : 0);

  const t = startTable("FACP", 6);
  t.u32(facsAddress, dsdtAddress);
  t.u8(0, PREFERRED_PM_PROFILE_DESKTOP).u16(config.sciIrq);
  t.u32(config.smiCommand).u8(0, 0, 0, 0); // ACPI_ENABLE, ACPI_DISABLE, S4BIOS_REQ, PSTATE_CNT: ACPI mode is permanent
  t.u32(at(PM1a_EVT), 0, at(PM1a_CNT), 0, 0, at(PM_TMR), at(GPE0), 0);
  t.u8(PM1a_EVT.length, PM1a_CNT.length, 0, PM_TMR.length, GPE0.length, 0, 0, 0);
  t.u16(P_LVL2_LAT_NONE, P_LVL3_LAT_NONE);
  t.u16(0, 0); // FLUSH_SIZE, FLUSH_STRIDE: unused with WBINVD
  t.u8(0, 0); // DUTY_OFFSET, DUTY_WIDTH: no throttling
  t.u8(0, 0, config.rtcCentury); // DAY_ALRM, MON_ALRM, CENTURY
  t.u16(bootArch).u8(0).u32(flags);
  ioBlock(t, config.resetPort, 1, ACCESS.byte);
  t.u8(config.resetValue).u16(0).u8(MINOR_VERSION);
  t.u64(0, dsdtAddress); // X_FIRMWARE_CTRL stays zero: the FACS lies below 4 GiB, and only one of the two may be given
  ioBlock(t, at(PM1a_EVT), PM1a_EVT.length, ACCESS.word);
  ioBlock(t, 0, 0, ACCESS.undefined);
  ioBlock(t, at(PM1a_CNT), PM1a_CNT.length, ACCESS.word);
  ioBlock(t, 0, 0, ACCESS.undefined);
  ioBlock(t, 0, 0, ACCESS.undefined);
  ioBlock(t, at(PM_TMR), PM_TMR.length, ACCESS.dword);
  ioBlock(t, at(GPE0), GPE0.length, ACCESS.byte);
  ioBlock(t, 0, 0, ACCESS.undefined);
  t.zeros(24); // SLEEP_CONTROL_REG, SLEEP_STATUS_REG: only hardware-reduced machines have them
  t.text("SKEP", 8, 0);
  return finishTable(t);
}
