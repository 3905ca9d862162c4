// Checks what a chart renders: every object against the Go types of its own API, unknown and
// repeated fields included, and every expression of an alert against the grammar of PromQL.
// Reads YAML documents from standard input, writes one JSON line for each that is wrong, and a
// last one with the numbers of objects by kind. Arguments: further PromQL expressions.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	certmanager "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"github.com/prometheus/prometheus/promql/parser"
	"k8s.io/apimachinery/pkg/runtime"
	serializer "k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"
	sigyaml "sigs.k8s.io/yaml"
)

type finding struct {
	Object string `json:"object"`
	Error  string `json:"error"`
}

// Kinds that other projects define, whose Go types would bring half of the ecosystem along.
var unchecked = map[string]bool{
	"grafana.integreatly.org/v1beta1, Kind=GrafanaDashboard": true,
	"autoscaling.k8s.io/v1, Kind=VerticalPodAutoscaler":      true,
}

func main() {
	if err := run(os.Stdin, os.Stdout, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(in io.Reader, out io.Writer, expressions []string) error {
	types := runtime.NewScheme()
	if err := scheme.AddToScheme(types); err != nil {
		return err
	}
	if err := monitoring.AddToScheme(types); err != nil {
		return err
	}
	if err := certmanager.AddToScheme(types); err != nil {
		return err
	}
	options := serializer.SerializerOptions{Yaml: true, Strict: true}
	decoder := serializer.NewSerializerWithOptions(serializer.DefaultMetaFactory, types, types, options)
	lines := json.NewEncoder(out)
	counts := map[string]int{}
	reader := yaml.NewYAMLReader(bufio.NewReader(in))
	for {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if empty(document) {
			continue
		}
		object, kind, err := decoder.Decode(document, nil, nil)
		name := "unknown"
		if kind != nil {
			name = kind.String()
			counts[kind.Kind]++
		}
		if err != nil && !(runtime.IsNotRegisteredError(err) && unchecked[name]) {
			if err := lines.Encode(finding{name, err.Error()}); err != nil {
				return err
			}
			continue
		}
		if rule, ok := object.(*monitoring.PrometheusRule); ok {
			for _, group := range rule.Spec.Groups {
				for _, each := range group.Rules {
					expressions = append(expressions, each.Expr.String())
				}
			}
		}
	}
	promql := parser.NewParser(parser.Options{})
	for _, expression := range expressions {
		if _, err := promql.ParseExpr(expression); err != nil {
			if err := lines.Encode(finding{expression, err.Error()}); err != nil {
				return err
			}
		}
	}
	return lines.Encode(map[string]any{"objects": counts, "expressions": len(expressions)})
}

func empty(document []byte) bool {
	var content any
	return sigyaml.Unmarshal(document, &content) == nil && content == nil
}
