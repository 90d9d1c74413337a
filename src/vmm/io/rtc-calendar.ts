// The calendar of a real-time clock: seconds since 1970 to the clock's register bytes and back.
// MC146818A data sheet, "Time, Calendar, and Alarm Locations" and Table 3 (data modes). Pure functions.

/** Positions in the array of time bytes, in the order of the state. */
export const FIELD = {
  seconds: 0,
  minutes: 1,
  hours: 2,
  dayOfWeek: 3,
  date: 4,
  month: 5,
  year: 6,
  century: 7,
} as const;

export const FIELDS = 8;

/** How register B says that the bytes are written. */
export interface DataMode {
  /** DM: binary, not BCD. */
  readonly binary: boolean;
  /** 24/12: hours 0 to 23, not 1 to 12 with bit 7 for the afternoon. */
  readonly hours24: boolean;
}

export const SECONDS_PER_DAY = 86_400;

const MS_PER_DAY = 86_400_000;

/** 1 January 1970 was a Thursday; Sunday is 1. */
const EPOCH_DAY_OF_WEEK = 4;

const PM = 0x80;

function encode(value: number, mode: DataMode): number {
  return mode.binary ? value & 0xff : (((Math.floor(value / 10) % 10) << 4) | (value % 10)) & 0xff;
}

function decode(byte: number, mode: DataMode): number {
  return mode.binary ? byte : (byte >> 4) * 10 + (byte & 0xf);
}

function encodeHour(hour: number, mode: DataMode): number {
  if (mode.hours24) return encode(hour, mode);
  return encode(hour % 12 || 12, mode) | (hour >= 12 ? PM : 0);
}

function decodeHour(byte: number, mode: DataMode): number {
  if (mode.hours24) return decode(byte, mode);
  return (decode(byte & ~PM, mode) % 12) + (byte & PM ? 12 : 0);
}

/** The day of the week, 1 to 7, of a day counted from 1 January 1970. */
export function dayOfWeek(day: number): number {
  return ((((day + EPOCH_DAY_OF_WEEK) % 7) + 7) % 7) + 1;
}

/** The bytes of a moment. `weekShift` is by how much the guest has its day of the week otherwise than the calendar. */
export function toFields(day: number, second: number, weekShift: number, mode: DataMode): Uint8Array {
  const date = new Date(day * MS_PER_DAY);
  const year = date.getUTCFullYear();
  const fields = new Uint8Array(FIELDS);
  fields[FIELD.seconds] = encode(second % 60, mode);
  fields[FIELD.minutes] = encode(Math.floor(second / 60) % 60, mode);
  fields[FIELD.hours] = encodeHour(Math.floor(second / 3600), mode);
  fields[FIELD.dayOfWeek] = encode(((dayOfWeek(day) - 1 + weekShift) % 7) + 1, mode);
  fields[FIELD.date] = encode(date.getUTCDate(), mode);
  fields[FIELD.month] = encode(date.getUTCMonth() + 1, mode);
  fields[FIELD.year] = encode(year % 100, mode);
  fields[FIELD.century] = encode(Math.floor(year / 100) % 100, mode);
  return fields;
}

export interface Moment {
  readonly day: number;
  readonly second: number;
  readonly weekShift: number;
}

/** The moment that bytes stand for. What is no date (30 February, hour 31) is carried over into the next one. */
export function fromFields(fields: Uint8Array, mode: DataMode): Moment {
  const number = (field: number) => decode(fields[field], mode);
  const total = decodeHour(fields[FIELD.hours], mode) * 3600 + number(FIELD.minutes) * 60 + number(FIELD.seconds);
  const date = new Date(0);
  date.setUTCFullYear(number(FIELD.century) * 100 + number(FIELD.year), number(FIELD.month) - 1, number(FIELD.date));
  const day = Math.floor(date.getTime() / MS_PER_DAY) + Math.floor(total / SECONDS_PER_DAY);
  const weekShift = (((number(FIELD.dayOfWeek) - dayOfWeek(day)) % 7) + 7) % 7;
  return { day, second: total % SECONDS_PER_DAY, weekShift };
}

/** Alarm bytes with both top bits set match any value (MC146818A, "Alarm": the don't-care codes C0h to FFh). */
function matches(alarm: number, byte: number): boolean {
  return alarm >= 0xc0 || alarm === byte;
}

/** Seconds from `second` (of a day) to the next one that the alarm bytes match, 1 to 86400; Infinity if they match none. */
export function secondsToAlarm(
  second: number,
  alarm: { readonly seconds: number; readonly minutes: number; readonly hours: number },
  mode: DataMode,
): number {
  const list = (count: number, byte: number, encoder: (value: number, mode: DataMode) => number) =>
    Array.from({ length: count }, (_, value) => value).filter((value) => matches(byte, encoder(value, mode)));
  const seconds = list(60, alarm.seconds, encode);
  const minutes = list(60, alarm.minutes, encode);
  const hours = list(24, alarm.hours, encodeHour);
  if (seconds.length === 0 || minutes.length === 0 || hours.length === 0) return Number.POSITIVE_INFINITY;
  const first = hours[0] * 3600 + minutes[0] * 60 + seconds[0];
  const from = second + 1;
  for (const hour of hours) {
    if (hour * 3600 + 3599 < from) continue;
    for (const minute of minutes) {
      const base = hour * 3600 + minute * 60;
      if (base + 59 < from) continue;
      for (const s of seconds) if (base + s >= from) return base + s - second;
    }
  }
  return SECONDS_PER_DAY + first - second;
}
