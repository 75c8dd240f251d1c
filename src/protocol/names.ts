const metricName = /^[A-Za-z_:][A-Za-z0-9_:]*$/;
const labelName = /^[A-Za-z_][A-Za-z0-9_]*$/;

/** Whether Prometheus takes it for a metric's name. https://prometheus.io/docs/concepts/data_model/ */
export function isMetricName(name: string): boolean {
  return metricName.test(name);
}

/**
 * Whether an agent may name a label so. `agent` is the server's, it says whose series this is; names with two underscores
 * in front are Prometheus's own, and so are `job` and `instance`: with honor_labels an agent could otherwise add series to
 * another job, and hide there that something is absent.
 */
export function isLabelName(name: string): boolean {
  return labelName.test(name) && !name.startsWith('__') && !reservedLabels.has(name);
}

const reservedLabels: ReadonlySet<string> = new Set(['agent', 'job', 'instance']);

/** Names that only a server, or Prometheus, may give a series. */
export function isReservedMetricName(name: string): boolean {
  return name === 'up' || name.startsWith('scrape_') || name === 'sysmon_agent_up' || name.startsWith('sysmon_server_');
}
