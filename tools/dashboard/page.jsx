// Shows the panels of the dashboard with the components that Grafana itself is made of. `window.dashboard` holds the
// dashboard, and the frames of each panel.
import { createRoot } from 'react-dom/client';
import { useEffect, useState } from 'react';
import { lastValueFrom } from 'rxjs';
import {
  FieldConfigOptionsRegistry,
  applyFieldOverrides,
  cacheFieldDisplayNames,
  createDataFrame,
  createTheme,
  dateTime,
  getFieldDisplayValues,
  standardTransformers,
  standardTransformersRegistry,
  transformDataFrame,
} from '@grafana/data';
import { BigValue, GlobalStyles, PanelChrome, ThemeContext, TimeSeries } from '@grafana/ui';
import { TableNG } from '@grafana/ui/unstable';

const { panels, frames, from, to, width } = window.dashboard;
const theme = createTheme({ colors: { mode: 'light' } });
const COLUMN = (width - 16) / 24;
const ROW = 38;
const GAP = 8;

const PROPERTIES = ['unit', 'min', 'max', 'decimals', 'noValue', 'displayName', 'thresholds', 'mappings', 'color'];
const CUSTOM = ['cellOptions', 'width', 'minWidth', 'align', 'drawStyle', 'lineInterpolation', 'lineWidth', 'fillOpacity',
  'showPoints', 'stacking', 'spanNulls', 'thresholdsStyle', 'axisSoftMax'];
const item = (id, path, isCustom) => ({
  id, path, isCustom, name: id, process: (value) => value, shouldApply: () => true, override: () => null,
  editor: () => null,
});
const registry = new FieldConfigOptionsRegistry(() => [
  ...PROPERTIES.map((name) => item(name, name, false)),
  ...CUSTOM.map((name) => item(`custom.${name}`, name, true)),
]);
// the transformations of the tables
standardTransformersRegistry.setInit(() =>
  [standardTransformers.noopTransformer, standardTransformers.organizeFieldsTransformer].map((transformation) => ({
    id: transformation.id, name: transformation.name, transformation: () => Promise.resolve(transformation),
    editor: () => null,
  })),
);

const range = { from: dateTime(from * 1000), to: dateTime(to * 1000), raw: { from: '', to: '' } };

// Panels of time series have a palette, unless they name other colors.
function fieldConfig(panel) {
  const { defaults = {}, overrides = [] } = panel.fieldConfig ?? {};
  const color = panel.type === 'timeseries' ? { color: { mode: 'palette-classic' } } : {};
  return { defaults: { ...color, ...defaults }, overrides };
}

function Stat({ panel, data, width, height }) {
  const values = getFieldDisplayValues({
    data, theme, fieldConfig: fieldConfig(panel), reduceOptions: panel.options.reduceOptions,
    replaceVariables: (text) => text,
  });
  return (
    <div style={{ display: 'flex', gap: 4 }}>
      {values.map((value, index) => (
        <BigValue key={index} theme={theme} width={(width - 4 * (values.length - 1)) / values.length} height={height}
          value={value.display} count={values.length} colorMode={panel.options.colorMode} graphMode="none"
          textMode={panel.options.textMode} justifyMode={panel.options.justifyMode ?? 'auto'} />
      ))}
    </div>
  );
}

function Content({ panel, width, height }) {
  const [data, setData] = useState();
  useEffect(() => {
    const raw = (frames[panel.id] ?? []).map((frame) => createDataFrame(frame));
    const transformed = transformDataFrame(panel.transformations ?? [], raw, { interpolate: (text) => text });
    lastValueFrom(transformed).then((found) => {
      const shown = applyFieldOverrides({
        data: found, fieldConfig: fieldConfig(panel), fieldConfigRegistry: registry, replaceVariables: (text) => text,
        theme, timeZone: 'utc',
      });
      cacheFieldDisplayNames(shown);
      setData(shown);
    });
  }, []);
  if (!data) return null;
  if (data.every((frame) => !frame.length)) {
    const text = fieldConfig(panel).defaults.noValue ?? 'No data';
    return <div style={{ paddingTop: height / 3, textAlign: 'center' }}>{text}</div>;
  }
  switch (panel.type) {
    case 'stat': return <Stat {...{ panel, data, width, height }} />;
    case 'table':
      return <TableNG data={data[0]} width={width} height={height} sortBy={panel.options.sortBy} />;
    default:
      return <TimeSeries frames={data} width={width} height={height} timeRange={range} timeZone="utc"
        legend={{ showLegend: true, calcs: [], ...panel.options.legend }} />;
  }
}

function Panel({ panel }) {
  const { x, y, w, h } = panel.gridPos;
  const style = { position: 'absolute', left: 8 + x * COLUMN, top: 8 + y * ROW };
  if (panel.type === 'row') return <div style={{ ...style, ...theme.typography.h4, paddingTop: 4 }}>{panel.title}</div>;
  const size = { width: w * COLUMN - GAP, height: h * ROW - GAP };
  return (
    <div style={style}>
      <PanelChrome title={panel.title} description={panel.description} {...size}>
        {(width, height) => <Content {...{ panel, width, height }} />}
      </PanelChrome>
    </div>
  );
}

createRoot(document.getElementById('root')).render(
  <ThemeContext.Provider value={theme}>
    <GlobalStyles />
    {panels.map((panel) => <Panel key={panel.id} panel={panel} />)}
  </ThemeContext.Provider>,
);
