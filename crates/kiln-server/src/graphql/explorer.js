// The token stays in the page's memory: it is typed into the tab "Headers".
const fetcher = async (request, options) => {
  const response = await fetch("/query", {
    method: "POST",
    headers: { "Content-Type": "application/json", ...(options && options.headers) },
    body: JSON.stringify(request),
  });
  return response.json();
};

const explorer = React.createElement(GraphiQL, {
  fetcher,
  defaultEditorToolsVisibility: "headers",
  headers: '{\n  "Authorization": "Bearer kiln_u_..."\n}',
  defaultQuery: "# Put your token into the headers below, then run this.\n{\n  version { major minor patch }\n  me { canonicalName }\n}\n",
  shouldPersistHeaders: false,
});

ReactDOM.createRoot(document.getElementById("explorer")).render(explorer);
