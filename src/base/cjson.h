/* The functions of cJSON that lucidauth calls, in a table that system/cjson.c fills. A program may export a cJSON of
 * its own; the linker would then give that one to every library in the process.
 *
 * Calls inside cJSON may still reach the program's cJSON. So the table leaves out functions that call another public
 * one in normal operation, such as cJSON_Delete and cJSON_ReplaceItemViaPointer. json.h has replacements for these. */
#ifndef BASE_CJSON_H
#define BASE_CJSON_H

#include <cjson/cJSON.h>

#define CJSON_NAMES(each)                                                                                            \
  each(AddItemToArray) each(AddItemToObject) each(CreateArray) each(CreateNumber) each(CreateObject)                 \
      each(CreateString) each(CreateTrue) each(DetachItemViaPointer) each(Duplicate) each(GetArraySize)              \
          each(GetObjectItemCaseSensitive) each(IsArray) each(IsBool) each(IsFalse) each(IsNull) each(IsNumber)      \
              each(IsObject) each(IsRaw) each(IsString) each(IsTrue) each(ParseWithLengthOpts) each(SetNumberHelper) \
                  each(free)

struct cjson {
#define CJSON_FIELD(name) __typeof__(cJSON_##name) *(name);
  CJSON_NAMES(CJSON_FIELD)
#undef CJSON_FIELD
};

extern struct cjson cjson;

#ifndef CJSON_BY_NAME
#define cJSON_AddItemToArray cjson.AddItemToArray
#define cJSON_AddItemToObject cjson.AddItemToObject
#define cJSON_CreateArray cjson.CreateArray
#define cJSON_CreateNumber cjson.CreateNumber
#define cJSON_CreateObject cjson.CreateObject
#define cJSON_CreateString cjson.CreateString
#define cJSON_CreateTrue cjson.CreateTrue
#define cJSON_DetachItemViaPointer cjson.DetachItemViaPointer
#define cJSON_Duplicate cjson.Duplicate
#define cJSON_GetArraySize cjson.GetArraySize
#define cJSON_GetObjectItemCaseSensitive cjson.GetObjectItemCaseSensitive
#define cJSON_IsArray cjson.IsArray
#define cJSON_IsBool cjson.IsBool
#define cJSON_IsFalse cjson.IsFalse
#define cJSON_IsNull cjson.IsNull
#define cJSON_IsNumber cjson.IsNumber
#define cJSON_IsObject cjson.IsObject
#define cJSON_IsRaw cjson.IsRaw
#define cJSON_IsString cjson.IsString
#define cJSON_IsTrue cjson.IsTrue
#define cJSON_ParseWithLengthOpts cjson.ParseWithLengthOpts
#define cJSON_SetNumberHelper cjson.SetNumberHelper
#define cJSON_free cjson.free
#endif

#endif
