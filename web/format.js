// Numbers and times as people read them. Pure.

const UNITS = ["", "k", "M", "G", "T"];

/** A number with three or four digits: 1234567 is 1.23 M. */
export function number(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (Number.isInteger(value) && Math.abs(value) < 10_000) return value.toLocaleString("en");
  let unit = 0;
  while (Math.abs(value) >= 1000 && unit < UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  const digits = unit === 0 && Math.abs(value) < 1 ? 3 : Math.abs(value) < 10 ? 2 : Math.abs(value) < 100 ? 1 : 0;
  return `${value.toFixed(digits)}${unit ? ` ${UNITS[unit]}` : ""}`;
}

/** How many of what: 1 entry, 2 entries. */
export function plural(count, one, several = `${one}s`) {
  return `${number(count)} ${count === 1 ? one : several}`;
}

export function percent(share) {
  return share === null || share === undefined ? "–" : `${(share * 100).toFixed(2)} %`;
}

export function bytes(value) {
  if (!value) return "–";
  const steps = ["B", "KiB", "MiB", "GiB", "TiB"];
  let step = 0;
  while (value >= 1024 && step < steps.length - 1) {
    value /= 1024;
    step += 1;
  }
  return `${value.toFixed(step && value < 100 ? 1 : 0)} ${steps[step]}`;
}

/** A duration given in seconds. */
export function seconds(value) {
  if (value === null || value === undefined) return "–";
  if (value === 0) return "0 s";
  if (value < 1e-3) return `${Math.round(value * 1e6)} µs`;
  if (value < 1) return `${(value * 1e3).toFixed(value < 0.01 ? 2 : 0)} ms`;
  return `${value.toFixed(2)} s`;
}

/** How long something has been there, given in seconds. */
export function age(value) {
  if (value < 60) return `${Math.max(0, Math.round(value))} s`;
  if (value < 3600) return `${Math.floor(value / 60)} min`;
  if (value < 86_400) return `${Math.floor(value / 3600)} h ${Math.floor((value % 3600) / 60)} min`;
  return `${Math.floor(value / 86_400)} d ${Math.floor((value % 86_400) / 3600)} h`;
}

/** The time of day of a second since 1970, here. */
export function clock(at, withSeconds = true) {
  const options = { hour: "2-digit", minute: "2-digit", hour12: false };
  if (withSeconds) options.second = "2-digit";
  return new Date(at * 1000).toLocaleTimeString("en", options);
}

/** The day of a second since 1970, here. */
export function day(at) {
  return new Date(at * 1000).toLocaleDateString("en", { day: "numeric", month: "short" });
}

/** The time of day, and of another day its date as well. */
export function moment(at) {
  const then = new Date(at * 1000);
  const isToday = then.toDateString() === new Date().toDateString();
  return isToday ? clock(at) : `${day(at)} ${clock(at)}`;
}

/** How a metric is read. */
export function formatOf(metric) {
  switch (metric) {
    case "accuracy":
    case "recent_accuracy":
    case "rejection_rate":
      return percent;
    case "memory_bytes":
      return bytes;
    case "latency_seconds":
      return seconds;
    case "log_loss":
    case "recent_log_loss":
    case "kappa":
    case "threshold":
    case "mean_absolute_error":
      return (value) => (value === null || value === undefined ? "–" : value.toFixed(value < 10 ? 4 : 1));
    default:
      return number;
  }
}
