// Program clients calls each route of a server with the official Go library of OpenAI. It is a module of its
// own, so that the library is no dependency of ptune. testdata/serve.py runs it.
package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
)

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func check(ok bool, format string, args ...any) {
	if !ok {
		panic(fmt.Sprintf(format, args...))
	}
}

func main() {
	ctx := context.Background()
	client := openai.NewClient(option.WithBaseURL(os.Getenv("SERVER")+"/v1"), option.WithAPIKey("a-key"))
	models := must(client.Models.List(ctx))
	check(len(models.Data) == 3 && models.Data[0].ID == "demo", "models: %+v", models.Data)

	const review = "The waiters were rude and the soup was cold."
	choice := func(values ...string) openai.DecisionNewParamsQuestionUnion {
		q := &openai.DecisionNewParamsQuestionChoice{Name: openai.String("stars")}
		q.Instructions.OfString = openai.String("How many stars?")
		for _, v := range values {
			c := openai.DecisionNewParamsQuestionChoiceChoice{}
			c.Value.OfString = openai.String(v)
			q.Choices = append(q.Choices, c)
		}
		return openai.DecisionNewParamsQuestionUnion{OfChoice: q}
	}
	predicate := &openai.DecisionNewParamsQuestionPredicate{}
	predicate.Instructions.OfString = openai.String("Is it about food?")
	d := must(client.Decisions.New(ctx, openai.DecisionNewParams{
		Model: "stars", Input: openai.DecisionNewParamsInputUnion{OfString: openai.String(review)},
		Questions: []openai.DecisionNewParamsQuestionUnion{choice("one star", "five stars")},
	}))
	a := d.Answers[0].AsChoice()
	check(a.Name == "stars" && a.Choice.OfString == "one star" && len(a.Probabilities) == 2, "decision: %s", d.RawJSON())
	check(math.Abs(a.Probabilities[0].Probability+a.Probabilities[1].Probability-1) < 1e-9, "decision: %s", d.RawJSON())
	d = must(client.Decisions.New(ctx, openai.DecisionNewParams{
		Model: "demo", Input: openai.DecisionNewParamsInputUnion{OfString: openai.String(review)},
		Questions: []openai.DecisionNewParamsQuestionUnion{{OfPredicate: predicate}},
	}))
	check(d.Answers[0].AsPredicate().Probability > 0, "predicate: %s", d.RawJSON())

	_, err := client.Decisions.New(ctx, openai.DecisionNewParams{
		Model: "stars", Input: openai.DecisionNewParamsInputUnion{OfString: openai.String(review)},
		Questions: []openai.DecisionNewParamsQuestionUnion{choice("one star", "ten stars")},
	})
	var api *openai.Error
	check(errors.As(err, &api) && api.StatusCode == 400 && api.Param == "questions[0].choices", "error: %v", err)

	completion := openai.CompletionNewParams{Model: "demo", MaxTokens: openai.Int(20), Temperature: openai.Float(0)}
	completion.Prompt.OfString = openai.String("The")
	text := must(client.Completions.New(ctx, completion)).Choices[0].Text
	streamed := ""
	stream := client.Completions.NewStreaming(ctx, completion)
	for stream.Next() {
		streamed += stream.Current().Choices[0].Text
	}
	check(stream.Err() == nil && text != "" && streamed == text, "streamed %q, want %q (%v)", streamed, text, stream.Err())

	chat := openai.ChatCompletionNewParams{Model: "demo", MaxCompletionTokens: openai.Int(10), Temperature: openai.Float(0),
		Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage("Say something.")}}
	whole, parts := must(client.Chat.Completions.New(ctx, chat)), openai.ChatCompletionAccumulator{}
	chunks := client.Chat.Completions.NewStreaming(ctx, chat)
	for chunks.Next() {
		parts.AddChunk(chunks.Current())
	}
	check(chunks.Err() == nil && parts.Choices[0].Message.Content == whole.Choices[0].Message.Content,
		"chat: %q, want %q (%v)", parts.Choices[0].Message.Content, whole.Choices[0].Message.Content, chunks.Err())

	short, cancel := context.WithTimeout(ctx, time.Millisecond)
	defer cancel()
	completion.MaxTokens = openai.Int(400)
	_, err = client.Completions.New(short, completion)
	check(errors.Is(err, context.DeadlineExceeded), "a cancelled request: %v", err)
	fmt.Println("openai-go: models, decisions, completions, chats, streaming, errors and cancelling work")
}
